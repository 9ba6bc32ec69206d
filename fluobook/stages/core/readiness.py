"""Why a live object is not ready yet, "" once it is: workloads by their counts, others by their conditions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fluobook.clients.kube import Kube
from fluobook.errors import KUBECTL, NotFound, OutsideError
from fluobook.stages.core.check import Check, count

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_HEALTH = ("Ready", "Available", "Complete")
"""Conditions that report an object's health, whatever its kind."""


def why_not(obj: Mapping[str, Any]) -> str:
    """What keeps the object from being ready."""
    if obj["kind"] in WORKLOADS:
        return _workload(obj)
    status = obj.get("status") or {}
    if obj["kind"] == "PersistentVolumeClaim":
        return "" if status.get("phase") == "Bound" else f"is {status.get('phase', 'Pending')}"
    if obj["kind"] == "Job":
        return _job(status)
    for condition in status.get("conditions") or ():
        if condition["type"] in _HEALTH and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or f"is not {condition['type']}")
    return ""


def _workload(obj: Mapping[str, Any]) -> str:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 1):
        return "has not been observed by its controller yet"
    if obj["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = spec.get("replicas", 1)
        updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
        if wanted == 0 and obj["metadata"].get("namespace") == "kube-system":  # no chart wants that there
            return "is scaled to 0"
    return "" if min(updated, ready) >= wanted else f"{min(updated, ready)} of {wanted} pods are ready"


def _job(status: Mapping[str, Any]) -> str:
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    if "Complete" in conditions:
        return ""
    return str(conditions["Failed"].get("message") or "has failed") if "Failed" in conditions else "is not done yet"


def failed(obj: Mapping[str, Any]) -> bool:
    """Whether a Job has failed for good."""
    return obj["kind"] == "Job" and has_condition(obj, "Failed")


def has_condition(obj: Mapping[str, Any], name: str) -> bool:
    """Whether a condition of an object is True."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == name and c["status"] == "True" for c in conditions)


def listed(kube: Kube, api_version: str, kind: str, namespace: str = "") -> Sequence[Mapping[str, Any]]:
    """All objects of a kind; none if the cluster does not serve it."""
    try:
        return kube.list(api_version, kind, namespace)
    except NotFound:
        return ()


def bad_conditions(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The conditions of a Node that is not Ready, or under pressure."""
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition["status"] != ("True" if condition["type"] == "Ready" else "False"):
            yield condition


def certificates_check(kube: Kube) -> Check:
    """Whether certificates are issued. Advisory: it depends on servers on the internet, and no wave waits for it."""
    issuers = listed(kube, "cert-manager.io/v1", "ClusterIssuer")
    certificates = listed(kube, "cert-manager.io/v1", "Certificate")
    name, remedy = (
        "certificates are issued",
        f"{KUBECTL} describe certificates,orders,challenges -A",
    )
    if waiting := not_issued([*issuers, *certificates]):
        return Check(name, passed=False, result="; ".join(waiting), remedy=remedy, advisory=True)
    return Check(name, passed=True, result=count(len(certificates), []), advisory=True)


def not_issued(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """The issuers and certificates that are not ready, each with the reason."""
    waiting = []
    for obj in objects:
        if not has_condition(obj, "Ready"):
            name = "/".join(filter(None, (obj["metadata"].get("namespace"), obj["metadata"]["name"])))
            waiting.append(f"{obj['kind']} {name}: {why_not(obj) or 'has no status yet'}")
    return waiting


PAUSE = 5.0
"""Seconds between two reads of pods while something is waited for."""
DOUBT = 30.0
"""Seconds that a reason which no waiting removes must last: the pod may belong to a version that is being replaced."""
_LASTING = re.compile(r"InvalidImageName|ErrImageNeverPull|runAsNonRoot")


class WaitingPods:
    """Why pods do not run, read every few seconds.

    Args:
        read: reads the reasons.
    """

    def __init__(self, read: Callable[[], Iterable[str]]) -> None:
        self._read, self._read_at = read, time.monotonic()
        self._since: dict[str, float] = {}

    def reasons(self, *, restart: bool = False) -> tuple[str, str]:
        """The first reason, and the first that only a change of the pod removes; "" for none.

        Args:
            restart: the pods may be those of an older version: no reason has lasted yet.
        """
        if restart:
            self._since = dict.fromkeys(self._since, time.monotonic())
        if time.monotonic() - self._read_at >= PAUSE:
            self._read_at = time.monotonic()
            with suppress(OutsideError):  # the API is away for a moment: the wait itself reports that
                self._since = {reason: self._since.get(reason, self._read_at) for reason in self._read()}
        lasting = (r for r, at in self._since.items() if _LASTING.search(r) and self._read_at - at >= DOUBT)
        return next(iter(self._since), ""), next(lasting, "")


def has_pods(api_version: str, kind: str, namespace: str) -> bool:
    """Whether an object may have pods of its own: a workload, or what an operator makes pods for."""
    group = api_version.rpartition("/")[0]
    return kind in WORKLOADS or bool(namespace and "." in group and not group.endswith(".k8s.io"))


def why_with_its_pods(kube: Kube, obj: Mapping[str, Any]) -> str:
    """What keeps the object from being ready, and what its first waiting pod says; "" if it is ready."""
    why = why_not(obj)
    return "; ".join(filter(None, (why, why_its_pods_wait(kube, obj)))) if why else ""


def why_its_pods_wait(kube: Kube, obj: Mapping[str, Any]) -> str:
    """What the first waiting pod of an object says: "web-x, container a: ImagePullBackOff: …"; "" if none does."""
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
    labels = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    if obj["kind"] not in WORKLOADS:
        has = has_pods(obj["apiVersion"], obj["kind"], namespace)
        return next(why_pods_wait(kube, namespace, [name]), "") if has else ""
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return next(_why(kube, namespace, kube.list("v1", "Pod", namespace, labels=selector)), "") if labels else ""


def why_pods_wait(kube: Kube, namespace: str, owners: Iterable[str]) -> Iterator[str]:
    """What waiting pods say. They are named after their owners, also if an operator makes them.

    fluodata-dc1-rack1-0 belongs to the ScyllaCluster fluodata.
    """
    beginnings = tuple(f"{owner}-" for owner in owners)
    return _why(
        kube, namespace, [p for p in kube.list("v1", "Pod", namespace) if p["metadata"]["name"].startswith(beginnings)]
    )


def _why(kube: Kube, namespace: str, pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    warnings: dict[str, str] | None = None
    for pod in pods:
        if has_condition(pod, "Ready") or (pod.get("status") or {}).get("phase") == "Succeeded":
            continue
        name, reason = pod["metadata"]["name"], _reason(pod)
        if not reason:
            warnings = _warnings(kube, namespace) if warnings is None else warnings
            reason = warnings.get(name, "")
        changed = [
            str(condition.get("lastTransitionTime", ""))
            for condition in (pod.get("status") or {}).get("conditions") or ()
            if condition["status"] == "False" and condition["type"] in ("Ready", "PodScheduled")
        ]
        since = f" (since {max(changed)[11:19]} UTC)" if any(changed) else ""
        if reason:
            yield f"{name}{reason}{since}"


def _reason(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "", "PodInitializing", "ContainerCreating"):
            ended = (container.get("lastState") or {}).get("terminated") or {}
            exit_code = f"exit code {ended['exitCode']}" if "exitCode" in ended else ""
            killed = ended.get("reason", "").replace("Error", "")
            texts = (waiting["reason"], killed, exit_code, waiting.get("message", ""), ended.get("message", ""))
            return f", container {container['name']}: {': '.join(filter(None, texts))}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return ": " + ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
    return ""


def _warnings(kube: Kube, namespace: str) -> dict[str, str]:
    """The last warning about each pod: a volume that cannot be mounted, a probe that fails."""
    events = [event for event in kube.list("v1", "Event", namespace) if event.get("type") == "Warning"]
    events.sort(key=lambda event: str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp", "")))
    return {
        event["involvedObject"]["name"]: f": {event.get('reason')}: {event.get('message')}"
        for event in events
        if event["involvedObject"].get("kind") == "Pod"
    }
