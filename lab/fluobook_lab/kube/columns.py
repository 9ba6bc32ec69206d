"""The columns of the built-in kinds, as a real server prints them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fluobook_lab.kube.objects import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj

WIDE = 1
_ROLE = "node-role.kubernetes.io/"
NONE = "<none>"
MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


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


def age_since(when: str, until: str = "") -> str:
    """The time since a timestamp, until another or now, as kubectl words it."""
    end = dt.datetime.fromisoformat(until) if until else dt.datetime.now(dt.UTC)
    seconds = int((end - dt.datetime.fromisoformat(when)).total_seconds())
    for unit, size, below in (("s", 1, 120), ("m", 60, 10 * 60), ("m", 60, 3 * 3600), ("h", 3600, 48 * 3600)):
        if seconds < below:
            rest = seconds % 60
            whole = f"{seconds // size}{unit}"
            return whole + (f"{rest}s" if below == 10 * 60 and rest else "")
    return f"{seconds // 86400}d"


def at(path: str, default: Any = NONE) -> Callable[[Obj], Any]:
    """What stands at a path, or the default if that is nothing."""

    def cell(obj: Any) -> Any:
        for key in path.split("."):
            obj = obj.get(key) if isinstance(obj, dict) else None
        return default if obj in (None, "") else obj

    return cell


def text(name: str, path: str, default: Any = NONE, *, wide: bool = False) -> Column:
    """A column of what stands at a path."""
    return Column(name, at(path, default), priority=WIDE if wide else 0)


def number(name: str, path: str) -> Column:
    """A column of a number at a path, 0 if there is none."""
    return Column(name, at(path, 0), "integer")


Column.NAME = Column("Name", at("metadata.name"), format="name")
Column.AGE = Column("Age", lambda obj: age_since(obj["metadata"]["creationTimestamp"]))


def _node_status(obj: Obj) -> str:
    conditions = {c["type"]: c["status"] for c in (obj.get("status") or {}).get("conditions") or []}
    status = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    unknown = "NotReady" if conditions.get("Ready") == "Unknown" else status
    return unknown + (",SchedulingDisabled" if (obj.get("spec") or {}).get("unschedulable") else "")


def _node_roles(obj: Obj) -> str:
    return ",".join(sorted(key.removeprefix(_ROLE) for key in labels_of(obj) if key.startswith(_ROLE))) or NONE


def _node_address(kind: str) -> Callable[[Obj], str]:
    def cell(obj: Obj) -> str:
        found = [a["address"] for a in (obj.get("status") or {}).get("addresses") or [] if a["type"] == kind]
        return found[0] if found else NONE

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
    return lambda obj: f"{at(ready, 0)(obj)}/{at(wanted, default)(obj)}"


def _csr_condition(obj: Obj) -> str:
    status = obj.get("status") or {}
    kinds = [c["type"] for c in status.get("conditions") or []]
    return ",".join(kinds + (["Issued"] if status.get("certificate") else [])) or "Pending"


def _external_ip(obj: Obj) -> str:
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    pending = "<pending>" if obj["spec"].get("type") == "LoadBalancer" else NONE
    return ",".join(entry.get("ip") or entry.get("hostname", "") for entry in found) or pending


def _service_ports(obj: Obj) -> str:
    def port(told: Obj) -> str:
        node = f":{told['nodePort']}" if told.get("nodePort") else ""
        return f"{told['port']}{node}/{told.get('protocol', 'TCP')}"

    return ",".join(port(told) for told in obj["spec"].get("ports") or []) or NONE


def _selector(obj: Obj) -> str:
    selector = obj["spec"].get("selector") or {}
    return ",".join(f"{k}={v}" for k, v in (selector.get("matchLabels", selector) or {}).items()) or NONE


def _images(field: str) -> Callable[[Obj], str]:
    return lambda obj: ",".join(c.get(field, "") for c in obj["spec"]["template"]["spec"].get("containers") or [])


def _last_event(obj: Obj) -> str:
    return age_since(obj.get("lastTimestamp") or obj["metadata"]["creationTimestamp"])


def _first_event(obj: Obj) -> str:
    return age_since(obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"]["creationTimestamp"])


def _source(obj: Obj) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    told = [source.get("component") or obj.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(filter(None, told))


def _involved(obj: Obj) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
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
    text("Version", "status.nodeInfo.kubeletVersion", ""),
    Column("Internal-IP", _node_address("InternalIP"), priority=WIDE),
    Column("External-IP", _node_address("ExternalIP"), priority=WIDE),
    text("OS-Image", "status.nodeInfo.osImage", "<unknown>", wide=True),
    text("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>", wide=True),
    text("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>", wide=True),
)
_POD = (
    Column("Ready", _pod_ready),
    Column("Status", _pod_status),
    Column("Restarts", _restarts),
    Column.AGE,
    text("IP", "status.podIP", wide=True),
    text("Node", "spec.nodeName", wide=True),
    text("Nominated Node", "status.nominatedNodeName", wide=True),
    Column("Readiness Gates", lambda _: NONE, priority=WIDE),
)
_DEPLOYMENT = (
    Column("Ready", _of("status.readyReplicas", "spec.replicas")),
    number("Up-to-date", "status.updatedReplicas"),
    number("Available", "status.availableReplicas"),
    Column.AGE,
    *_CONTAINERS,
)
_DAEMON_SET = (
    number("Desired", "status.desiredNumberScheduled"),
    number("Current", "status.currentNumberScheduled"),
    number("Ready", "status.numberReady"),
    number("Up-to-date", "status.updatedNumberScheduled"),
    number("Available", "status.numberAvailable"),
    Column("Node Selector", lambda _: NONE),
    Column.AGE,
    *_CONTAINERS,
)
_REPLICA_SET = (
    number("Desired", "spec.replicas"),
    number("Current", "status.replicas"),
    number("Ready", "status.readyReplicas"),
    Column.AGE,
    *_CONTAINERS,
)
_SERVICE = (
    text("Type", "spec.type", "ClusterIP"),
    text("Cluster-IP", "spec.clusterIP"),
    Column("External-IP", _external_ip),
    Column("Port(s)", _service_ports),
    Column.AGE,
    Column("Selector", _selector, priority=WIDE),
)
_CSR = (
    Column.AGE,
    text("SignerName", "spec.signerName"),
    text("Requestor", "spec.username"),
    text("RequestedDuration", "spec.expirationSeconds"),
    Column("Condition", _csr_condition),
)
_CLAIM = (
    text("Status", "status.phase"),
    text("Volume", "spec.volumeName", ""),
    text("Capacity", "status.capacity.storage", ""),
    Column("Access Modes", lambda obj: ",".join(MODES.get(m, m) for m in obj["spec"].get("accessModes") or [])),
    text("StorageClass", "spec.storageClassName", ""),
    text("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
    Column.AGE,
    text("VolumeMode", "spec.volumeMode", "<unset>"),
)
_EVENT = (
    Column("Last Seen", _last_event),
    text("Type", "type", ""),
    text("Reason", "reason", ""),
    Column("Object", _involved),
    text("Subobject", "involvedObject.fieldPath", ""),
    Column("Source", _source),
    Column("Message", lambda obj: str(obj.get("message") or obj.get("note") or "").strip()),
    Column("First Seen", _first_event),
    Column("Count", lambda obj: obj.get("count") or obj.get("deprecatedCount") or 1),
    Column.NAME,
)


def named(*columns: Column) -> tuple[Column, ...]:
    """The columns after that of the name."""
    return (Column.NAME, *columns)


def _job_status(obj: Obj) -> str:
    done = [c["type"] for c in (obj.get("status") or {}).get("conditions") or [] if c["status"] == "True"]
    return "Complete" if "Complete" in done else "Failed" if "Failed" in done else "Running"


def _duration(obj: Obj) -> str:
    status = obj.get("status") or {}
    if not (begin := status.get("startTime")):
        return ""
    return age_since(begin, status.get("completionTime", ""))


def _ingress_ports(obj: Obj) -> str:
    return "80, 443" if obj["spec"].get("tls") else "80"


def _pod_selector(obj: Obj) -> str:
    labels = (obj["spec"].get("podSelector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in labels.items()) or NONE


COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "nodes"): named(*_NODE),
    ("", "pods"): named(*_POD),
    ("", "services"): named(*_SERVICE),
    ("", "namespaces"): named(text("Status", "status.phase"), Column.AGE),
    ("", "configmaps"): named(
        Column("Data", lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), "integer"), Column.AGE
    ),
    ("", "secrets"): named(
        text("Type", "type"), Column("Data", lambda obj: len(obj.get("data") or {}), "integer"), Column.AGE
    ),
    ("", "serviceaccounts"): named(Column.AGE),
    ("", "persistentvolumeclaims"): named(*_CLAIM),
    ("", "events"): _EVENT,
    ("events.k8s.io", "events"): _EVENT,
    ("apps", "deployments"): named(*_DEPLOYMENT),
    ("apps", "daemonsets"): named(*_DAEMON_SET),
    ("apps", "replicasets"): named(*_REPLICA_SET),
    ("apps", "statefulsets"): named(
        Column("Ready", _of("status.readyReplicas", "spec.replicas")), Column.AGE, *_CONTAINERS[:2]
    ),
    ("batch", "jobs"): named(
        Column("Status", _job_status),
        Column("Completions", _of("status.succeeded", "spec.completions")),
        Column("Duration", _duration),
        Column.AGE,
        *_CONTAINERS,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): named(*_CSR),
    ("coordination.k8s.io", "leases"): named(text("Holder", "spec.holderIdentity", ""), Column.AGE),
    ("apiextensions.k8s.io", "customresourcedefinitions"): named(text("Created At", "metadata.creationTimestamp")),
    ("networking.k8s.io", "networkpolicies"): named(Column("Pod-Selector", _pod_selector), Column.AGE),
    ("networking.k8s.io", "ingresses"): named(
        text("Class", "spec.ingressClassName"),
        Column("Hosts", lambda obj: ",".join(rule.get("host", "*") for rule in obj["spec"].get("rules") or []) or "*"),
        Column("Address", lambda obj: _external_ip(obj).replace(NONE, "")),
        Column("Ports", _ingress_ports),
        Column.AGE,
    ),
}
