"""The health checks that Argo CD brings itself, kind by kind and in its own words (gitops-engine)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.health.verdict import HEALTHY, Health
from fluobook_lab.kube.objects import condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj

PROGRESSING = "Progressing"


def _status(obj: Obj) -> dict[str, Any]:
    return obj.get("status") or {}


def _spec(obj: Obj) -> dict[str, Any]:
    return obj.get("spec") or {}


def _observed(obj: Obj) -> bool:
    return _status(obj).get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)


def deployment(obj: Obj) -> Health:
    """Rolled out, unless it is paused."""
    return Health("Suspended", "Deployment is paused") if _spec(obj).get("paused") else _rolled_out(obj)


def _rolled_out(obj: Obj) -> Health:
    """All replicas updated and available, no old one left."""
    spec, status = _spec(obj), _status(obj)
    if not _observed(obj):
        return Health(
            PROGRESSING, "Waiting for rollout to finish: observed deployment generation less than desired generation"
        )
    told = condition(obj, PROGRESSING)
    if told and told.get("reason") == "ProgressDeadlineExceeded":
        return Health("Degraded", f'Deployment "{obj["metadata"]["name"]}" exceeded its progress deadline')
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    if updated < wanted:
        return Health(
            PROGRESSING, f"Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        )
    old, available = status.get("replicas", 0) - updated, status.get("availableReplicas", 0)
    if old > 0:
        return Health(PROGRESSING, f"Waiting for rollout to finish: {old} old replicas are pending termination...")
    if available < updated:
        return Health(
            PROGRESSING, f"Waiting for rollout to finish: {available} of {updated} updated replicas are available..."
        )
    return HEALTHY


def stateful_set(obj: Obj) -> Health:
    """All replicas ready, at the newest revision."""
    spec, status = _spec(obj), _status(obj)
    if not status.get("observedGeneration") or not _observed(obj):
        return Health(PROGRESSING, "Waiting for statefulset spec update to be observed...")
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    if ready < wanted:
        return Health(PROGRESSING, f"Waiting for {wanted - ready} pods to be ready...")
    if (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
        return HEALTHY
    newest, updated = status.get("updateRevision"), status.get("updatedReplicas", 0)
    if newest != status.get("currentRevision"):
        return Health(
            PROGRESSING, f"waiting for statefulset rolling update to complete {updated} pods at revision {newest}..."
        )
    return HEALTHY


def daemon_set(obj: Obj) -> Health:
    """A pod updated and available on every node that should have one."""
    name, status = obj["metadata"]["name"], _status(obj)
    if not _observed(obj):
        return Health(
            PROGRESSING, "Waiting for rollout to finish: observed daemon set generation less than desired generation"
        )
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    if updated < wanted:
        how = f"{updated} out of {wanted} new pods have been updated..."
        return Health(PROGRESSING, f'Waiting for daemon set "{name}" rollout to finish: {how}')
    available = status.get("numberAvailable", 0)
    if available < wanted:
        how = f"{available} of {wanted} updated pods are available..."
        return Health(PROGRESSING, f'Waiting for daemon set "{name}" rollout to finish: {how}')
    return HEALTHY


def replica_set(obj: Obj) -> Health:
    """All replicas available."""
    if not _observed(obj):
        return Health(
            PROGRESSING, "Waiting for rollout to finish: observed replica set generation less than desired generation"
        )
    wanted, available = _spec(obj).get("replicas", 1), _status(obj).get("availableReplicas", 0)
    if available < wanted:
        return Health(
            PROGRESSING, f"Waiting for rollout to finish: {available} out of {wanted} new replicas are available..."
        )
    return HEALTHY


def job(obj: Obj) -> Health:
    """Complete, or failed."""
    for kind, verdict in (("Failed", "Degraded"), ("Complete", "Healthy"), ("Suspended", "Suspended")):
        found = condition(obj, kind)
        if found and found.get("status") == "True":
            return Health(verdict, found.get("message", ""))
    return Health(PROGRESSING)


def pod(obj: Obj) -> Health:
    """Running and ready, or done."""
    status = _status(obj)
    phase, message = status.get("phase"), status.get("message", "")
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or ()]
    for why in waiting:
        reason = str(why.get("reason", ""))
        if reason.startswith("Err") or reason.endswith(("Error", "BackOff")):
            return Health("Degraded", str(why.get("message", "")))
    if phase == "Succeeded":
        return Health("Healthy", message)
    if phase == "Failed":
        return Health("Degraded", message)
    ready = condition(obj, "Ready")
    if phase == "Running" and (_spec(obj).get("restartPolicy", "Always") == "Always"):
        return Health("Healthy" if ready and ready.get("status") == "True" else PROGRESSING, message)
    return Health(PROGRESSING, message)


def claim(obj: Obj) -> Health:
    """Bound to a volume."""
    return Health(
        {"Bound": "Healthy", "Lost": "Degraded", "Pending": PROGRESSING}.get(_status(obj).get("phase", ""), "Unknown")
    )


def service(obj: Obj) -> Health:
    """A load balancer has an address; any other kind is well."""
    if _spec(obj).get("type") != "LoadBalancer" or (_status(obj).get("loadBalancer") or {}).get("ingress"):
        return HEALTHY
    return Health(PROGRESSING)


def ingress(obj: Obj) -> Health:
    """It has an address."""
    return HEALTHY if (_status(obj).get("loadBalancer") or {}).get("ingress") else Health(PROGRESSING)


def definition(obj: Obj) -> Health:
    """Established, its names accepted."""
    if not _status(obj).get("conditions"):
        return Health(PROGRESSING, "Status conditions not found")
    for one in _status(obj)["conditions"]:
        if one["type"] == "Terminating" and one["status"] == "True":
            return Health(PROGRESSING, f"CRD is terminating: {one.get('message', '')}")
        if one["type"] == "NamesAccepted" and one["status"] == "False":
            return Health("Degraded", f"CRD names have not been accepted: {one.get('message', '')}")
    found = condition(obj, "Established")
    if found is None or found["status"] != "True":
        return Health(PROGRESSING, "CRD is not established")
    return Health("Healthy", "CRD is healthy")


def api_service(obj: Obj) -> Health:
    """Its server answers."""
    found = condition(obj, "Available")
    if found is None:
        return Health(PROGRESSING, "Waiting to be processed")
    message = f"{found.get('reason', '')}: {found.get('message', '')}"
    return Health("Healthy" if found["status"] == "True" else PROGRESSING, message)


def certificate(obj: Obj) -> Health:
    """Issued; cert-manager's own condition decides."""
    issuing, ready = condition(obj, "Issuing"), condition(obj, "Ready")
    if issuing and issuing["status"] == "True":
        return Health(PROGRESSING, issuing.get("message", ""))
    if ready:
        return Health("Healthy" if ready["status"] == "True" else "Degraded", ready.get("message", ""))
    return Health(PROGRESSING, "Waiting for certificate")


def issuer(obj: Obj) -> Health:
    """Registered with its authority."""
    ready = condition(obj, "Ready")
    if ready is None:
        return Health(PROGRESSING, f"Initializing {obj['kind']}")
    return Health("Healthy" if ready["status"] == "True" else "Degraded", ready.get("message", ""))


CNPG_BAD = (
    "Unable to create required cluster objects",
    "Not enough disk space",
    "Cluster has incomplete or invalid image catalog",
    "Cluster is unrecoverable and needs manual intervention",
    "Cluster upgrade failed",
)


def postgresql(obj: Obj) -> Health:
    """CloudNativePG's own phase."""
    phase = _status(obj).get("phase", "")
    if not phase:
        return Health(PROGRESSING, "Waiting for the cluster's status")
    if phase == "Cluster in healthy state":
        return Health("Healthy", phase)
    return Health("Degraded" if phase.startswith(CNPG_BAD) else PROGRESSING, phase)


def rabbitmq(obj: Obj) -> Health:
    """Reconciled, and all replicas ready."""
    conditions = {one["type"]: one for one in _status(obj).get("conditions") or ()}
    if not conditions:
        return Health(PROGRESSING, "Waiting for RabbitMQ cluster formation")
    reconciled = conditions.get("ReconcileSuccess", {})
    if reconciled.get("status") == "False":
        return Health("Degraded", reconciled.get("message", ""))
    for kind in ("AllReplicasReady", "ClusterAvailable"):
        if kind in conditions and conditions[kind].get("status") != "True":
            return Health(PROGRESSING, "Waiting for RabbitMQ cluster formation")
    if not reconciled:
        return Health(PROGRESSING, "Waiting for RabbitMQ cluster reconciliation")
    return Health("Healthy", "RabbitMQ cluster ready")


def gateway(obj: Obj) -> Health:
    """Accepted and programmed."""
    for kind in ("Accepted", "Programmed"):
        found = condition(obj, kind)
        if found is None:
            return Health(PROGRESSING, "Waiting for Gateway status")
        if found["status"] != "True":
            return Health("Degraded", found.get("message", ""))
    return HEALTHY


CHECKS: dict[tuple[str, str], Callable[[Obj], Health]] = {
    ("", "PersistentVolumeClaim"): claim,
    ("", "Pod"): pod,
    ("", "Service"): service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definition,
    ("apiregistration.k8s.io", "APIService"): api_service,
    ("apps", "DaemonSet"): daemon_set,
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): replica_set,
    ("apps", "StatefulSet"): stateful_set,
    ("batch", "Job"): job,
    ("cert-manager.io", "Certificate"): certificate,
    ("cert-manager.io", "ClusterIssuer"): issuer,
    ("cert-manager.io", "Issuer"): issuer,
    ("gateway.networking.k8s.io", "Gateway"): gateway,
    ("networking.k8s.io", "Ingress"): ingress,
    ("postgresql.cnpg.io", "Cluster"): postgresql,
    ("rabbitmq.com", "RabbitmqCluster"): rabbitmq,
}
"""By (group, kind). An Application is not among them: since Argo CD 1.8 it has no health of its own."""
