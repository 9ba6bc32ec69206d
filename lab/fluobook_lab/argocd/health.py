"""The health of an object as Argo CD assesses it: the Lua of argocd-cm, its own Lua, then the built-in checks.

`None` means that the kind has no health: no wave waits for such an object.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes.health_scripts import STATUSES, HealthScripts, ScriptError
from fluobook_lab.argocd.objects import group_of
from fluobook_lab.data import table
from fluobook_lab.kube.objects import condition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook_lab.kube.objects import Obj

PROGRESSING = "Progressing"


@dataclass(frozen=True)
class Health:
    """One of `STATUSES`, and its message."""

    status: str
    message: str = ""

    def worse_than(self, other: Health) -> bool:
        """Whether this is the one of the two to show."""
        return STATUSES.index(self.status) > STATUSES.index(other.status)


HEALTHY = Health("Healthy")


class HealthChecks:
    """The health checks under one reading of argocd-cm.

    Args:
        scripts: Lua by "group_Kind", or "Kind" in the core group; the group may contain `*`.
    """

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self._scripts = dict(scripts)
        self._sandbox = HealthScripts()

    def health(self, obj: Obj) -> Health | None:
        """The health of a live object, None if its kind has none."""
        if obj["metadata"].get("deletionTimestamp"):
            return Health(PROGRESSING, "Pending deletion")
        try:
            if scripted := self.scripted(obj):
                return scripted
        except ScriptError as error:
            return Health("Unknown", str(error))
        check = CHECKS.get((group_of(obj), obj["kind"]))
        return check(obj) if check else None

    def scripted(self, obj: Obj) -> Health | None:
        """The result of the kind's Lua script, None if it has no script.

        Raises:
            ScriptError: the script is broken.
        """
        group, kind = group_of(obj), obj["kind"]
        name = f"{group}_{kind}" if group else kind
        patterns = (pattern for pattern in self._scripts if "*" in pattern and fnmatch.fnmatchcase(name, pattern))
        own = table("argocd/health_scripts.yaml").get(name)
        script = self._scripts.get(name if name in self._scripts else next(patterns, ""), own)
        return Health(*self._sandbox.run(script, obj)) if script else None


def _status(obj: Obj) -> dict[str, Any]:
    return obj.get("status") or {}


def _spec(obj: Obj) -> dict[str, Any]:
    return obj.get("spec") or {}


def _observed(obj: Obj) -> bool:
    return _status(obj).get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)


def _rollout(message: str) -> Health:
    return Health(PROGRESSING, f"Waiting for rollout to finish: {message}")


def _generation(kind: str) -> Health:
    return _rollout(f"observed {kind} generation less than desired generation")


def deployment(obj: Obj) -> Health:
    """All replicas updated and available, no old one left; suspended while paused."""
    spec, status = _spec(obj), _status(obj)
    if spec.get("paused"):
        return Health("Suspended", "Deployment is paused")
    if not _observed(obj):
        return _generation("deployment")
    if (condition(obj, PROGRESSING) or {}).get("reason") == "ProgressDeadlineExceeded":
        return Health("Degraded", f'Deployment "{obj["metadata"]["name"]}" exceeded its progress deadline')
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    old, available = status.get("replicas", 0) - updated, status.get("availableReplicas", 0)
    if updated < wanted:
        return _rollout(f"{updated} out of {wanted} new replicas have been updated...")
    if old > 0:
        return _rollout(f"{old} old replicas are pending termination...")
    return HEALTHY if available >= updated else _rollout(f"{available} of {updated} updated replicas are available...")


def stateful_set(obj: Obj) -> Health:
    """All replicas ready, at the newest revision."""
    spec, status = _spec(obj), _status(obj)
    if not status.get("observedGeneration") or not _observed(obj):
        return Health(PROGRESSING, "Waiting for statefulset spec update to be observed...")
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    if ready < wanted:
        return Health(PROGRESSING, f"Waiting for {wanted - ready} pods to be ready...")
    newest, on_delete = status.get("updateRevision"), (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    if on_delete or newest == status.get("currentRevision"):
        return HEALTHY
    pods = f"{status.get('updatedReplicas', 0)} pods at revision {newest}"
    return Health(PROGRESSING, f"waiting for statefulset rolling update to complete {pods}...")


def daemon_set(obj: Obj) -> Health:
    """An updated, available pod on every node that should have one."""
    name, status = obj["metadata"]["name"], _status(obj)
    if not _observed(obj):
        return _generation("daemon set")
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    available, waiting = status.get("numberAvailable", 0), f'Waiting for daemon set "{name}" rollout to finish: '
    if updated < wanted:
        return Health(PROGRESSING, f"{waiting}{updated} out of {wanted} new pods have been updated...")
    if available < wanted:
        return Health(PROGRESSING, f"{waiting}{available} of {wanted} updated pods are available...")
    return HEALTHY


def job(obj: Obj) -> Health:
    """Complete, failed or suspended, according to its conditions."""
    for kind, status in (("Failed", "Degraded"), ("Complete", "Healthy"), ("Suspended", "Suspended")):
        state = condition(obj, kind) or {}
        if state.get("status") == "True":
            return Health(status, state.get("message", ""))
    return Health(PROGRESSING)


def pod(obj: Obj) -> Health:
    """Running and ready, or completed."""
    status = _status(obj)
    phase, message = status.get("phase"), status.get("message", "")
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason.startswith("Err") or reason.endswith(("Error", "BackOff")):
            return Health("Degraded", str(waiting.get("message", "")))
    ready = (condition(obj, "Ready") or {}).get("status") == "True"
    if phase == "Running" and ready and _spec(obj).get("restartPolicy", "Always") == "Always":
        return Health("Healthy", message)
    return Health({"Succeeded": "Healthy", "Failed": "Degraded"}.get(str(phase), PROGRESSING), message)


def claim(obj: Obj) -> Health:
    """Bound to a volume."""
    statuses = {"Bound": "Healthy", "Lost": "Degraded", "Pending": PROGRESSING}
    return Health(statuses.get(_status(obj).get("phase", ""), "Unknown"))


def ingress(obj: Obj) -> Health:
    """It has an address."""
    return HEALTHY if (_status(obj).get("loadBalancer") or {}).get("ingress") else Health(PROGRESSING)


def service(obj: Obj) -> Health:
    """A load balancer has an address; any other type is healthy."""
    return ingress(obj) if _spec(obj).get("type") == "LoadBalancer" else HEALTHY


def definition(obj: Obj) -> Health:
    """Established, with accepted names."""
    conditions = {entry["type"]: entry for entry in _status(obj).get("conditions") or ()}
    if not conditions:
        return Health(PROGRESSING, "Status conditions not found")
    terminating, names = conditions.get("Terminating", {}), conditions.get("NamesAccepted", {})
    if terminating.get("status") == "True":
        return Health(PROGRESSING, f"CRD is terminating: {terminating.get('message', '')}")
    if names.get("status") == "False":
        return Health("Degraded", f"CRD names have not been accepted: {names.get('message', '')}")
    if conditions.get("Established", {}).get("status") != "True":
        return Health(PROGRESSING, "CRD is not established")
    return Health("Healthy", "CRD is healthy")


def api_service(obj: Obj) -> Health:
    """Its server is available."""
    available = condition(obj, "Available")
    if available is None:
        return Health(PROGRESSING, "Waiting to be processed")
    message = f"{available.get('reason', '')}: {available.get('message', '')}"
    return Health("Healthy" if available["status"] == "True" else PROGRESSING, message)


CHECKS: dict[tuple[str, str], Callable[[Obj], Health]] = {
    ("", "PersistentVolumeClaim"): claim,
    ("", "Pod"): pod,
    ("", "Service"): service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definition,
    ("apiregistration.k8s.io", "APIService"): api_service,
    ("apps", "DaemonSet"): daemon_set,
    ("apps", "Deployment"): deployment,
    ("apps", "StatefulSet"): stateful_set,
    ("batch", "Job"): job,
    ("networking.k8s.io", "Ingress"): ingress,
}
"""By (group, kind). An Application is not among them: since Argo CD 1.8 it has no health of its own."""
