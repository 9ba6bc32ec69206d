"""The columns of the kinds that people list less often: storage, policy, roles, classes, and the API's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.columns import MODES, NONE, Column, age_since, at, named, number, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj


def _modes(obj: Obj) -> str:
    return ",".join(MODES.get(mode, mode) for mode in obj["spec"].get("accessModes") or [])


def _claim(obj: Obj) -> str:
    claim = obj["spec"].get("claimRef") or {}
    return f"{claim.get('namespace', '')}/{claim['name']}" if claim.get("name") else ""


def _flag(path: str, default: str = "<unset>") -> Callable[[Obj], str]:
    return lambda obj: {True: "true", False: "false"}.get(at(path, None)(obj), default)


def _count(path: str) -> Callable[[Obj], int]:
    return lambda obj: len(at(path, ())(obj))


def _role(obj: Obj) -> str:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def _subjects(kind: str) -> Callable[[Obj], str]:
    def name(subject: Obj) -> str:
        return f"{subject.get('namespace', '')}/{subject['name']}" if kind == "ServiceAccount" else subject["name"]

    return lambda obj: ", ".join(name(one) for one in obj.get("subjects") or [] if one["kind"] == kind)


def _created(name: str = "Created At") -> Column:
    return Column(name, at("metadata.creationTimestamp"), "date")


def _endpoints(obj: Obj) -> str:
    found = [address for one in obj.get("endpoints") or [] for address in one.get("addresses") or []]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""  # noqa: PLR2004 (as many as are shown)
    return (",".join(found[:3]) or "<unset>") + more


def _slice_ports(obj: Obj) -> str:
    return ",".join(str(port.get("port")) for port in obj.get("ports") or []) or "<unset>"


def _addresses(obj: Obj) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or []
        for port in subset.get("ports") or []
        for address in subset.get("addresses") or []
    ]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""  # noqa: PLR2004
    return (",".join(found[:3]) or NONE) + more


def _service_of(obj: Obj) -> str:
    service = obj["spec"].get("service")
    return f"{service['namespace']}/{service['name']}" if service else "Local"


def _available(obj: Obj) -> str:
    found = [c for c in (obj.get("status") or {}).get("conditions") or [] if c["type"] == "Available"]
    return "Unknown" if not found else "True" if found[0]["status"] == "True" else f"False ({found[0].get('reason')})"


def _owner(obj: Obj) -> str:
    for owner in obj["metadata"].get("ownerReferences") or []:
        group = owner["apiVersion"].rpartition("/")[0]
        return f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"
    return NONE


def _limits(kind: str) -> Callable[[Obj], str]:
    """A quota's use and limits, of requests or of limits."""

    def cell(obj: Obj) -> str:
        hard, used = (at(f"status.{part}", {})(obj) for part in ("hard", "used"))
        names = [name for name in sorted(hard) if name.startswith("limits.") == (kind == "limits")]
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)

    return cell


def _since(path: str) -> Callable[[Obj], str]:
    def cell(obj: Obj) -> str:
        when = at(path)(obj)
        return age_since(when) if when != NONE else NONE

    return cell


def _reference(obj: Obj) -> str:
    target = obj["spec"]["scaleTargetRef"]
    return f"{target['kind']}/{target['name']}"


def _parent(obj: Obj) -> str:
    told = obj["spec"].get("parentRef") or {}
    return "/".join(told[key] for key in ("resource", "namespace", "name") if told.get(key))


def _job_of(field: str) -> Callable[[Obj], str]:
    def cell(obj: Obj) -> str:
        template = at("spec.jobTemplate.spec.template.spec.containers", [])(obj)
        return ",".join(one.get(field, "") for one in template)

    return cell


_VOLUME = (
    text("Capacity", "spec.capacity.storage", ""),
    Column("Access Modes", _modes),
    text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", ""),
    text("Status", "status.phase", ""),
    Column("Claim", _claim),
    text("StorageClass", "spec.storageClassName", ""),
    text("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
    text("Reason", "status.reason", ""),
    Column.AGE,
    text("VolumeMode", "spec.volumeMode", "<unset>"),
)
_BINDING = (
    Column("Role", _role),
    Column.AGE,
    Column("Users", _subjects("User")),
    Column("Groups", _subjects("Group")),
    Column("ServiceAccounts", _subjects("ServiceAccount")),
)
_SCALER = (
    Column("Reference", _reference),
    Column("Targets", lambda _: NONE),
    text("MinPods", "spec.minReplicas", "<unset>"),
    text("MaxPods", "spec.maxReplicas"),
    text("Replicas", "status.currentReplicas", 0),
    Column.AGE,
)
_CRON_JOB = (
    text("Schedule", "spec.schedule"),
    text("Timezone", "spec.timeZone"),
    Column("Suspend", _flag("spec.suspend", "False")),
    Column("Active", _count("status.active")),
    Column("Last Schedule", _since("status.lastScheduleTime")),
    Column.AGE,
    Column("Containers", _job_of("name")),
    Column("Images", _job_of("image")),
    Column("Selector", lambda _: NONE),
)
_WEBHOOKS = named(Column("Webhooks", _count("webhooks")), Column.AGE)

RARE: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "endpoints"): named(Column("Endpoints", _addresses), Column.AGE),
    ("", "limitranges"): named(_created()),
    ("", "persistentvolumes"): named(*_VOLUME),
    ("", "resourcequotas"): named(
        Column("Request", _limits("requests")), Column("Limit", _limits("limits")), Column.AGE
    ),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): _WEBHOOKS,
    ("apiregistration.k8s.io", "apiservices"): named(
        Column("Service", _service_of), Column("Available", _available), Column.AGE
    ),
    ("apps", "controllerrevisions"): named(Column("Controller", _owner), text("Revision", "revision", 0), Column.AGE),
    ("autoscaling", "horizontalpodautoscalers"): named(*_SCALER),
    ("batch", "cronjobs"): named(*_CRON_JOB),
    ("discovery.k8s.io", "endpointslices"): named(
        text("AddressType", "addressType"), Column("Ports", _slice_ports), Column("Endpoints", _endpoints), Column.AGE
    ),
    ("networking.k8s.io", "ingressclasses"): named(
        text("Controller", "spec.controller"), text("Parameters", "spec.parameters.name"), Column.AGE
    ),
    ("networking.k8s.io", "ipaddresses"): named(Column("ParentRef", _parent)),
    ("networking.k8s.io", "servicecidrs"): named(
        Column("CIDRs", lambda obj: ",".join(obj["spec"].get("cidrs") or [])), Column.AGE
    ),
    ("node.k8s.io", "runtimeclasses"): named(text("Handler", "handler"), Column.AGE),
    ("policy", "poddisruptionbudgets"): named(
        text("Min Available", "spec.minAvailable", "N/A"),
        text("Max Unavailable", "spec.maxUnavailable", "N/A"),
        number("Allowed Disruptions", "status.disruptionsAllowed"),
        Column.AGE,
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): named(*_BINDING),
    ("rbac.authorization.k8s.io", "clusterroles"): named(_created()),
    ("rbac.authorization.k8s.io", "rolebindings"): named(*_BINDING),
    ("rbac.authorization.k8s.io", "roles"): named(_created()),
    ("scheduling.k8s.io", "priorityclasses"): named(
        number("Value", "value"),
        Column("Global-Default", lambda obj: bool(obj.get("globalDefault"))),
        Column.AGE,
        text("PreemptionPolicy", "preemptionPolicy", "PreemptLowerPriority"),
    ),
    ("storage.k8s.io", "csidrivers"): named(
        Column("AttachRequired", lambda obj: obj["spec"].get("attachRequired", True)),
        Column("PodInfoOnMount", lambda obj: obj["spec"].get("podInfoOnMount", False)),
        Column("StorageCapacity", lambda obj: obj["spec"].get("storageCapacity", False)),
        Column("TokenRequests", lambda _: "<unset>"),
        Column("RequiresRepublish", lambda obj: obj["spec"].get("requiresRepublish", False)),
        Column("Modes", lambda obj: ",".join(obj["spec"].get("volumeLifecycleModes") or ["Persistent"])),
        Column.AGE,
    ),
    ("storage.k8s.io", "csinodes"): named(Column("Drivers", _count("spec.drivers")), Column.AGE),
    ("storage.k8s.io", "csistoragecapacities"): named(_created()),
    ("storage.k8s.io", "storageclasses"): named(
        text("Provisioner", "provisioner"),
        text("ReclaimPolicy", "reclaimPolicy"),
        text("VolumeBindingMode", "volumeBindingMode", "Immediate"),
        Column("AllowVolumeExpansion", _flag("allowVolumeExpansion", "false")),
        Column.AGE,
    ),
    ("storage.k8s.io", "volumeattachments"): named(
        text("Attacher", "spec.attacher"),
        text("PV", "spec.source.persistentVolumeName", ""),
        text("Node", "spec.nodeName"),
        Column("Attached", lambda obj: bool(at("status.attached", None)(obj))),
        Column.AGE,
    ),
}
