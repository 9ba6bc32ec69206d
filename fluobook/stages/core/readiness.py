"""Why a live object is not ready yet, "" once it is: workloads by their counts, others by their conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import NotFound
from fluobook.stages.core.check import Check, count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.clients.kube import Kube

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


def certificates_check(kube: Kube) -> Check:
    """Whether certificates are issued. Advisory: it depends on servers on the internet, and no wave waits for it."""
    try:
        issuers = kube.list("cert-manager.io/v1", "ClusterIssuer")
        certificates = kube.list("cert-manager.io/v1", "Certificate")
    except NotFound:
        issuers = certificates = []
    name, remedy = (
        "certificates are issued",
        "`kubectl describe` the certificate, then its Order and Challenge",
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


def why_its_pods_wait(kube: Kube, obj: Mapping[str, Any]) -> str:
    """What the first waiting pod of a workload says, such as "web-x: ImagePullBackOff: …"; "" if none does.

    An operator names the pods of its resource after it: fluodata-dc1-rack1-0 belongs to the ScyllaCluster fluodata.
    """
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
    labels = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    group = obj["apiVersion"].rpartition("/")[0]
    if obj["kind"] in WORKLOADS and labels:
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        pods = kube.list("v1", "Pod", namespace, labels=selector)
    elif namespace and "." in group and not group.endswith(".k8s.io"):
        pods = [pod for pod in kube.list("v1", "Pod", namespace) if pod["metadata"]["name"].startswith(f"{name}-")]
    else:
        return ""
    return next((f"{pod['metadata']['name']}: {problem}" for pod in pods if (problem := _pod(pod))), "")


def _pod(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "", "PodInitializing", "ContainerCreating"):
            ended = ((container.get("lastState") or {}).get("terminated") or {}).get("exitCode")
            exit_code = f"exit code {ended}" if ended is not None else ""
            return ": ".join(filter(None, (waiting["reason"], exit_code, waiting.get("message", ""))))
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason", ""))
    return ""
