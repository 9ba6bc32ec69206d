"""The columns of the built-in kinds, as a real server prints them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fluobook.lab.kube.objects import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.lab.kube.objects import Obj

WIDE = 1
_ROLE = "node-role.kubernetes.io/"
_NONE = "<none>"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


@dataclass(frozen=True)
class Column:
    """One column: its heading, what stands in a row's cell, OpenAPI type, and priority (1 is shown by `-o wide`)."""

    name: str
    cell: Callable[[Obj], Any]
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""

    NAME: ClassVar[Column]
    AGE: ClassVar[Column]


def age_since(when: str) -> str:
    """The time since a timestamp, as kubectl words it."""
    seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(when)).total_seconds())
    for unit, size, until in (("s", 1, 120), ("m", 60, 10 * 60), ("m", 60, 3 * 3600), ("h", 3600, 48 * 3600)):
        if seconds < until:
            rest = seconds % 60
            whole = f"{seconds // size}{unit}"
            return whole + (f"{rest}s" if until == 10 * 60 and rest else "")
    return f"{seconds // 86400}d"


def _at(path: str, default: Any = _NONE) -> Callable[[Obj], Any]:
    def cell(obj: Any) -> Any:
        for key in path.split("."):
            obj = obj.get(key) if isinstance(obj, dict) else None
        return default if obj in (None, "") else obj

    return cell


def _text(name: str, path: str, default: Any = _NONE, *, wide: bool = False) -> Column:
    return Column(name, _at(path, default), priority=WIDE if wide else 0)


def _number(name: str, path: str) -> Column:
    return Column(name, _at(path, 0), "integer")


Column.NAME = Column("Name", _at("metadata.name"), format="name")
Column.AGE = Column("Age", lambda obj: age_since(obj["metadata"]["creationTimestamp"]))


def _node_status(obj: Obj) -> str:
    conditions = {c["type"]: c["status"] for c in (obj.get("status") or {}).get("conditions") or []}
    status = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    unknown = "NotReady" if conditions.get("Ready") == "Unknown" else status
    return unknown + (",SchedulingDisabled" if (obj.get("spec") or {}).get("unschedulable") else "")


def _node_roles(obj: Obj) -> str:
    return ",".join(sorted(key.removeprefix(_ROLE) for key in labels_of(obj) if key.startswith(_ROLE))) or _NONE


def _node_address(kind: str) -> Callable[[Obj], str]:
    def cell(obj: Obj) -> str:
        found = [a["address"] for a in (obj.get("status") or {}).get("addresses") or [] if a["type"] == kind]
        return found[0] if found else _NONE

    return cell


def _pod_ready(obj: Obj) -> str:
    statuses = (obj.get("status") or {}).get("containerStatuses") or []
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(obj['spec'].get('containers') or [])}"


def _pod_status(obj: Obj) -> str:
    status = obj.get("status") or {}
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = [
        s["state"]["waiting"]["reason"] for s in status.get("containerStatuses") or [] if "waiting" in s["state"]
    ]
    phase = {"Succeeded": "Completed", "Failed": "Error"}.get(status.get("phase", ""), status.get("phase", "Unknown"))
    return waiting[0] if waiting else status.get("reason") or phase


def _restarts(obj: Obj) -> str:
    return str(sum(s.get("restartCount", 0) for s in (obj.get("status") or {}).get("containerStatuses") or []))


def _of(ready: str, wanted: str, default: int = 1) -> Callable[[Obj], str]:
    return lambda obj: f"{_at(ready, 0)(obj)}/{_at(wanted, default)(obj)}"


def _csr_condition(obj: Obj) -> str:
    status = obj.get("status") or {}
    kinds = [c["type"] for c in status.get("conditions") or []]
    return ",".join(kinds + (["Issued"] if status.get("certificate") else [])) or "Pending"


def _external_ip(obj: Obj) -> str:
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    pending = "<pending>" if obj["spec"].get("type") == "LoadBalancer" else _NONE
    return ",".join(entry.get("ip") or entry.get("hostname", "") for entry in found) or pending


def _service_ports(obj: Obj) -> str:
    def port(told: Obj) -> str:
        node = f":{told['nodePort']}" if told.get("nodePort") else ""
        return f"{told['port']}{node}/{told.get('protocol', 'TCP')}"

    return ",".join(port(told) for told in obj["spec"].get("ports") or []) or _NONE


def _selector(obj: Obj) -> str:
    selector = obj["spec"].get("selector") or {}
    return ",".join(f"{k}={v}" for k, v in (selector.get("matchLabels", selector) or {}).items()) or _NONE


def _images(field: str) -> Callable[[Obj], str]:
    return lambda obj: ",".join(c.get(field, "") for c in obj["spec"]["template"]["spec"].get("containers") or [])


def _last_event(obj: Obj) -> str:
    return age_since(obj.get("lastTimestamp") or obj["metadata"]["creationTimestamp"])


def _involved(obj: Obj) -> str:
    about = obj.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


_CONTAINERS = (
    Column("Containers", _images("name"), priority=WIDE),
    Column("Images", _images("image"), priority=WIDE),
    Column("Selector", _selector, priority=WIDE),
)
_NODE = (
    Column("Status", _node_status),
    Column("Roles", _node_roles),
    Column.AGE,
    _text("Version", "status.nodeInfo.kubeletVersion", ""),
    Column("Internal-IP", _node_address("InternalIP"), priority=WIDE),
    Column("External-IP", _node_address("ExternalIP"), priority=WIDE),
    _text("OS-Image", "status.nodeInfo.osImage", "<unknown>", wide=True),
    _text("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>", wide=True),
    _text("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>", wide=True),
)
_POD = (
    Column("Ready", _pod_ready),
    Column("Status", _pod_status),
    Column("Restarts", _restarts),
    Column.AGE,
    _text("IP", "status.podIP", wide=True),
    _text("Node", "spec.nodeName", wide=True),
    _text("Nominated Node", "status.nominatedNodeName", wide=True),
    Column("Readiness Gates", lambda _: _NONE, priority=WIDE),
)
_DEPLOYMENT = (
    Column("Ready", _of("status.readyReplicas", "spec.replicas")),
    _number("Up-to-date", "status.updatedReplicas"),
    _number("Available", "status.availableReplicas"),
    Column.AGE,
    *_CONTAINERS,
)
_DAEMON_SET = (
    _number("Desired", "status.desiredNumberScheduled"),
    _number("Current", "status.currentNumberScheduled"),
    _number("Ready", "status.numberReady"),
    _number("Up-to-date", "status.updatedNumberScheduled"),
    _number("Available", "status.numberAvailable"),
    Column("Node Selector", lambda _: _NONE),
    Column.AGE,
    *_CONTAINERS,
)
_REPLICA_SET = (
    _number("Desired", "spec.replicas"),
    _number("Current", "status.replicas"),
    _number("Ready", "status.readyReplicas"),
    Column.AGE,
    *_CONTAINERS,
)
_SERVICE = (
    _text("Type", "spec.type", "ClusterIP"),
    _text("Cluster-IP", "spec.clusterIP"),
    Column("External-IP", _external_ip),
    Column("Port(s)", _service_ports),
    Column.AGE,
    Column("Selector", _selector, priority=WIDE),
)
_CSR = (
    Column.AGE,
    _text("SignerName", "spec.signerName"),
    _text("Requestor", "spec.username"),
    _text("RequestedDuration", "spec.expirationSeconds"),
    Column("Condition", _csr_condition),
)
_CLAIM = (
    _text("Status", "status.phase"),
    _text("Volume", "spec.volumeName", ""),
    _text("Capacity", "status.capacity.storage", ""),
    Column("Access Modes", lambda obj: ",".join(_MODES.get(m, m) for m in obj["spec"].get("accessModes") or [])),
    _text("StorageClass", "spec.storageClassName", ""),
    Column.AGE,
)
_EVENT = (
    Column("Last Seen", _last_event),
    _text("Type", "type", ""),
    _text("Reason", "reason", ""),
    Column("Object", _involved),
    _text("Message", "message", ""),
)


def _named(*columns: Column) -> tuple[Column, ...]:
    return (Column.NAME, *columns)


def _job_status(obj: Obj) -> str:
    done = [c["type"] for c in (obj.get("status") or {}).get("conditions") or [] if c["status"] == "True"]
    return "Complete" if "Complete" in done else "Failed" if "Failed" in done else "Running"


def _pod_selector(obj: Obj) -> str:
    labels = (obj["spec"].get("podSelector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in labels.items()) or _NONE


COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "nodes"): _named(*_NODE),
    ("", "pods"): _named(*_POD),
    ("", "services"): _named(*_SERVICE),
    ("", "namespaces"): _named(_text("Status", "status.phase"), Column.AGE),
    ("", "configmaps"): _named(
        Column("Data", lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), "integer"), Column.AGE
    ),
    ("", "secrets"): _named(
        _text("Type", "type"), Column("Data", lambda obj: len(obj.get("data") or {}), "integer"), Column.AGE
    ),
    ("", "serviceaccounts"): _named(
        Column("Secrets", lambda obj: len(obj.get("secrets") or ()), "integer"), Column.AGE
    ),
    ("", "persistentvolumeclaims"): _named(*_CLAIM),
    ("", "events"): _EVENT,
    ("apps", "deployments"): _named(*_DEPLOYMENT),
    ("apps", "daemonsets"): _named(*_DAEMON_SET),
    ("apps", "replicasets"): _named(*_REPLICA_SET),
    ("apps", "statefulsets"): _named(
        Column("Ready", _of("status.readyReplicas", "spec.replicas")), Column.AGE, *_CONTAINERS[:2]
    ),
    ("batch", "jobs"): _named(
        Column("Status", _job_status),
        Column("Completions", _of("status.succeeded", "spec.completions")),
        Column.AGE,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): _named(*_CSR),
    ("coordination.k8s.io", "leases"): _named(_text("Holder", "spec.holderIdentity", ""), Column.AGE),
    ("storage.k8s.io", "storageclasses"): _named(
        _text("Provisioner", "provisioner"), _text("ReclaimPolicy", "reclaimPolicy"), Column.AGE
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): _named(_text("Created At", "metadata.creationTimestamp")),
    ("networking.k8s.io", "networkpolicies"): _named(Column("Pod-Selector", _pod_selector), Column.AGE),
    ("networking.k8s.io", "ingresses"): _named(
        _text("Class", "spec.ingressClassName"),
        Column("Hosts", lambda obj: ",".join(rule.get("host", "*") for rule in obj["spec"].get("rules") or []) or "*"),
        Column("Address", lambda obj: _external_ip(obj).replace(_NONE, "")),
        Column.AGE,
    ),
}
