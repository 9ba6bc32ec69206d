"""A canary volume: a small volume of Longhorn is attached to one node, written, read back and deleted.

A Job does it. The volume belongs to the Job's pod, and the Job has a time to live: whatever ends fluobook, Kubernetes
deletes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.errors import DeadlineExceeded, FluobookError, Refused, TaskFailed
from fluobook.machine.contracts import value_at
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.day_two.drain import LONGHORN

NAME = "fluobook-canary"
JOB = ("batch/v1", "Job")
LABELS = {"app": NAME}
DRIVER, MANAGER = "driver.longhorn.io", "longhorn-manager"
MOST_SECONDS, KEPT_SECONDS = 3600, 300
"""When Kubernetes ends the Job, and when it deletes one that is over, if nobody else does."""
USER = 65534
SCRIPT = """set -eu
dd if=/dev/urandom of=/dev/shm/sample bs=64k count=16 iflag=fullblock status=none
dd if=/dev/shm/sample of=/canary/sample bs=64k oflag=direct conv=fsync status=none
written=$(sha256sum < /dev/shm/sample)
read=$(dd if=/canary/sample bs=64k iflag=direct status=none | sha256sum)
echo "written ${written%% *}, read ${read%% *}" | tee /dev/termination-log
[ "$written" = "$read" ]
"""
"""Writes a MiB past all caches and reads it back from the volume."""


@dataclass(frozen=True)
class Longhorn:
    """Where Longhorn attaches volumes, and what a canary needs.

    Args:
        nodes: the names of the nodes on which it runs.
        storage_class: a class of it whose volumes are deleted with their claims; "" if there is none.
        image: of its own program, which each of these nodes has already; a shell is in it.
    """

    nodes: frozenset[str] = frozenset()
    storage_class: str = ""
    image: str = ""

    def canary_on(self, node: str) -> bool:
        """Whether a canary can be attached there while the node is cordoned."""
        return node in self.nodes and not self.why_not

    @property
    def why_not(self) -> str:
        """Why no canary can be attached to any cordoned node; "" if one can."""
        if not self.nodes:
            return "Longhorn does not run"
        if len(self.nodes) == 1:
            return f"Longhorn runs on {min(self.nodes)} alone, and places no replica on a cordoned node"
        return "" if self.storage_class else "no StorageClass of Longhorn deletes its volumes with their claims"


def read_longhorn(kube: Kube) -> Longhorn:
    """What of Longhorn runs; nothing without Longhorn."""
    pods = kube.list("v1", "Pod", LONGHORN, labels=f"app={MANAGER}")
    classes = [
        each["metadata"]["name"]
        for each in kube.list("storage.k8s.io/v1", "StorageClass")
        if each.get("provisioner") == DRIVER and each.get("reclaimPolicy", "Delete") == "Delete"
    ]
    images = [c["image"] for pod in pods for c in pod["spec"]["containers"] if c["name"] == MANAGER]
    nodes = frozenset(pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName"))
    return Longhorn(nodes, min(classes, default=""), min(images, default=""))


def job(node: str, longhorn: Longhorn) -> dict[str, Any]:
    """The Job for a node. Its pod is allowed in a namespace of any level, tolerates a cordon, and needs no network."""
    volume = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": longhorn.storage_class,
        "resources": {"requests": {"storage": "64Mi"}},
    }
    container = {
        "name": "canary",
        "image": longhorn.image,
        "command": ["sh", "-c", SCRIPT],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "volume", "mountPath": "/canary"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "volume", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": LABELS}, "spec": volume}}}
        ],
    }
    return {
        "apiVersion": JOB[0],
        "kind": JOB[1],
        "metadata": {"name": NAME, "namespace": LONGHORN, "labels": LABELS},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": MOST_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
        },
    }


def prove(context: RunContext, node: str, report: Reporter) -> Mapping[str, Any]:
    """Attach a volume to a node, write, read it back and delete it; what the container said, with its exit code.

    Raises:
        TaskFailed: it was not attached in time, or could not be written or read. Nothing is left of it.
        Refused: Longhorn is gone.
    """
    report("deletes what an earlier run left")
    remove(context)
    kube, longhorn = context.kube(), read_longhorn(context.kube())
    if not longhorn.canary_on(node):
        raise Refused(
            longhorn.why_not or f"Longhorn does not run on {node}",
            remedy=f"run the upgrade again for a new plan; {node} is still cordoned",
        )
    kube.create(job(node, longhorn))
    try:
        evidence = context.wait_until(
            "canary",
            f"the canary volume on {node} to be attached, written and read",
            lambda: _ended(kube, node, report),
            interval=0.5,
            final=(TaskFailed,),
        )
    except DeadlineExceeded as error:
        why = _why(kube, kube.find(*JOB, NAME, LONGHORN)) or error.message
        _remove_quietly(context)
        raise _failure(node, why) from error
    except BaseException:
        _remove_quietly(context)
        raise
    remove(context)
    return evidence


def _ended(kube: Kube, node: str, report: Reporter) -> Mapping[str, Any] | None:
    """How the container ended; None while it has not.

    Raises:
        TaskFailed: it ended with an error.
    """
    job = kube.get(*JOB, NAME, LONGHORN)
    ended: Mapping[str, Any] = {}
    for pod in kube.list("v1", "Pod", LONGHORN, labels=f"app={NAME}"):
        for status in value_at(dict(pod), "status.containerStatuses") or ():
            ended = (status.get("state") or {}).get("terminated") or ended
    if ended.get("exitCode"):
        raise _failure(node, f"exit code {ended['exitCode']}; {ended.get('message') or ended.get('reason') or ''}")
    if has_condition(job, "Failed"):
        raise _failure(node, _why(kube, job) or "it was not attached, written and read in time")
    if has_condition(job, "Complete"):
        return {"exit code": 0, "said": str(ended.get("message") or "").strip()}
    if why := _why(kube, job):
        report(why)
    return None


def _why(kube: Kube, job: Mapping[str, Any] | None) -> str:
    """The last warning about the pod of a Job, which may be gone already; "" if there is none."""
    begun = str(value_at(dict(job or {}), "metadata.creationTimestamp") or "")
    warnings = {
        when: f"{event.get('reason')}: {event.get('message')}"
        for event in kube.list("v1", "Event", LONGHORN, fields="type=Warning")
        if str(value_at(dict(event), "involvedObject.name")).startswith(NAME)
        and (when := str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp"))) >= begun
    }
    return warnings[max(warnings)] if warnings else ""


def _failure(node: str, why: str) -> TaskFailed:
    return TaskFailed(
        f"the canary volume on {node} failed: {why}",
        system="kubernetes",
        detail=why,
        facts={"node": node},
    )


def _remove_quietly(context: RunContext) -> None:
    """Delete the canary after an error, which matters more than an error of this."""
    with suppress(FluobookError):
        remove(context)


def remove(context: RunContext) -> None:
    """Delete the canary, if there is one, and wait until its pod, claim and volume are gone.

    Raises:
        DeadlineExceeded: something of it stays.
    """
    kube = context.kube()
    kube.delete(*JOB, NAME, LONGHORN, propagation="Foreground")

    def gone() -> bool | None:
        kinds = (JOB, ("v1", "Pod"), ("v1", "PersistentVolumeClaim"))
        left = [obj for kind in kinds for obj in kube.list(*kind, LONGHORN, labels=f"app={NAME}")]
        left += [
            volume
            for volume in kube.list("v1", "PersistentVolume")
            if str(value_at(dict(volume), "spec.claimRef.name")).startswith(f"{NAME}-")
        ]
        if left:
            names = ", ".join(f"{obj.get('kind', '')} {obj['metadata']['name']}".strip() for obj in left)
            raise FluobookError(f"still there: {names}")
        return True

    context.wait_until("canary", "the canary volume to be deleted", gone, interval=0.5)
