"""What makes a lab resemble a live platform: the document that is read of the one, and given to the other.

It is plain data without secrets: nodes with versions, VMs and members of etcd, other VMs, disruption budgets, where
pods run, the replicas of volumes, and Longhorn's own entries of nodes. Configurations, Secrets, data and what runs
inside the pods are not in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluobook import params
from fluobook.clients.talos import EtcdMember
from fluobook.cluster_secrets import AccessFile
from fluobook.context import RunContext
from fluobook.errors import FluobookError, ParamsError, Refused
from fluobook.files import write_text
from fluobook.kubernetes.selectors import workload_of
from fluobook.machine.contracts import value_at
from fluobook.params import Node, Params, Platform
from fluobook.stages import health, nodes, teardown
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.core.check import Check, run_groups
from fluobook.stages.core.cluster import cluster, read_etcd
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.readiness import bad_conditions, has_condition, listed
from fluobook.stages.create_vms import plan as vms
from fluobook.stages.create_vms import settings
from fluobook.stages.day_two import drain, longhorn
from fluobook.stages.day_two.longhorn import is_whole
from fluobook.stages.root_application.state import API, KIND
from fluobook.stages.upgrade_talos.state import Running, cold_boot, read_running

Obj = Mapping[str, Any]
State = Mapping[str, Any]
"""The document."""

OPTIONS = ("name", "tags", "smbios1", "sockets", "cores", "memory", "onboot", "protection")
"""The options of a VM that are copied; others may name what the lab does not have, or contain secrets."""
NOT_COPIED = (
    "data, Secrets, machine configurations, objects that are not in the tree (of workloads: as many pods that do "
    "nothing), load, times, hardware, full disks, the network, the age of certificates"
)
"""What no rehearsal has of the platform, for people."""


@dataclass(frozen=True)
class Observed:
    """What was read of a platform.

    Args:
        vms: its VMs, and others that concern it.
        nodes: the Nodes of Kubernetes.
        running: what each node runs, by its name; a node that does not answer is not in it.
        members: the members of etcd, as one of them sees them.
        load: what runs in the cluster.
        volumes: the PersistentVolumes.
        storage: what Longhorn has.
        offered: the versions that the Image Factory builds; none if they are unknown.
        applications: the Applications of Argo CD.
        gates: the gates that day-2 work asks before it touches a node.
        files: the kubeconfig and the talosconfig on this machine.
    """

    vms: vms.Observation
    nodes: Sequence[Obj] = ()
    running: Mapping[str, Running] = field(default_factory=dict)
    members: Sequence[EtcdMember] = ()
    load: drain.Load = field(default_factory=drain.Load)
    volumes: Sequence[Obj] = ()
    storage: longhorn.Storage = field(default_factory=longhorn.Storage)
    offered: Collection[str] = ()
    applications: Sequence[Obj] = ()
    gates: Sequence[Check] = ()
    files: Mapping[str, AccessFile] = field(default_factory=dict)


def observe(context: RunContext) -> Observed:
    """Read a platform; changes nothing.

    Raises:
        StageMissing: there is no cluster yet.
    """
    platform, kube = context.platform, cluster(context)
    observed, registered = vms.observe(context), kube.list("v1", "Node")
    machines = [*platform.nodes, *(node for node, _ in _former(platform, observed, registered))]
    answers = in_parallel(lambda node: read_running(context, node), machines, width=len(machines))
    reports = in_parallel(lambda node: read_etcd(context.talos.client(node)), platform.control_planes)
    load = drain.read_load(kube)
    return Observed(
        observed,
        registered,
        {node.name: runs for node, runs in zip(machines, answers, strict=True) if runs},
        next((report.members for report in reports if report.members), ()),
        load,
        kube.list("v1", "PersistentVolume"),
        longhorn.read_storage(kube, load, registered),
        _offered(context),
        listed(kube, API, KIND),
        run_groups(context, health.BETWEEN),
        context.secrets.access_files(platform, context.home),
    )


def _offered(context: RunContext) -> Collection[str]:
    """The versions that the Image Factory builds; none if it does not answer, which matters to some runbooks alone."""
    try:
        return context.factory.versions()
    except FluobookError:
        return ()


def _former(
    platform: Platform, observed: vms.Observation, registered: Sequence[Obj]
) -> list[tuple[Node, vms.ObservedVM]]:
    """The nodes that left the params and are still in the cluster: as nodes of the platform, and their VMs."""
    by_name, former = {node["metadata"]["name"]: node for node in registered}, []
    for vm in observed.strays:
        name = str(vm.resource.get("name"))
        if name in by_name and teardown.is_former_node(platform, vm):
            labels = by_name[name]["metadata"].get("labels") or {}
            role = "controlplane" if "node-role.kubernetes.io/control-plane" in labels else "worker"
            sizes = {
                disk: int(settings.size_gib(settings.property_string(disk, str(vm.config[disk])).get("size", "")))
                for disk in ("scsi0", "scsi1")
                if disk in vm.config
            }
            fields = {
                "name": name,
                "role": role,
                "host": vm.resource["node"],
                "address": nodes.address_of(by_name[name]),
                "cores": int(vm.config.get("cores", 1)),
                "memory_gib": int(next(iter(settings.property_string("", str(vm.config["memory"])).values())))
                // settings.MIB,
                "boot_disk_gib": sizes.get("scsi0", 0),
                "data_disk_gib": sizes.get("scsi1"),
                "vmid": vm.vmid,
                "labels": {},
                "taints": {},
                "uuid": settings.uuid_of(vm.config),
            }
            former.append((platform.nodes[0].model_copy(update=fields), vm))
    return former


def state_of(platform: Platform, observed: Observed) -> dict[str, Any]:
    """The document: plain JSON without secrets."""
    former = _former(platform, observed.vms, observed.nodes)
    ours = {node.name: observed.vms.ours(node) for node in platform.nodes} | {node.name: vm for node, vm in former}
    seen = {vm.vmid for vm in ours.values() if vm}
    others = [*observed.vms.strays, *(vm for same_node in observed.vms.vms.values() for vm in same_node)]
    members = {member.hostname: member.id for member in observed.members}
    registered = {node["metadata"]["name"]: node for node in observed.nodes}
    return {
        "cluster": platform.cluster.name,
        "former": [node.model_dump(mode="json", include=_FORMER) for node, _ in former],
        "offered": sorted(observed.offered),
        "nodes": {
            name: _node(vm, observed.running.get(name), members.get(name, ""), registered.get(name))
            for name, vm in ours.items()
        },
        "vms": [
            {
                "name": str(vm.resource.get("name") or ""),
                "host": vm.resource["node"],
                "vmid": vm.vmid,
                "running": vm.running,
                "options": _options(vm),
            }
            for vm in {vm.vmid: vm for vm in others if vm.vmid not in seen}.values()
        ],
        "budgets": [
            {"namespace": b["metadata"].get("namespace", ""), "name": b["metadata"]["name"], "spec": b["spec"]}
            for b in observed.load.budgets
        ],
        "pods": _pods(observed.load.pods),
        "volumes": list(_volumes(observed)),
        "homes": {home["metadata"]["name"]: _home(observed.storage, home) for home in observed.storage.homes},
        "deployed": bool(observed.applications),
        "files": {name: [file.exists, bool(file.problem)] for name, file in observed.files.items()},
        "gates": [{"name": g.name, "passed": g.passed or g.advisory, "result": g.result} for g in observed.gates],
    }


_FORMER = {"name", "role", "host", "address", "cores", "memory_gib", "boot_disk_gib", "data_disk_gib", "vmid"}


def _node(vm: vms.ObservedVM | None, runs: Running | None, member: str, node: Obj | None) -> dict[str, Any]:
    spec = (node or {}).get("spec") or {}
    return {
        "vm": ("running" if vm.running else "stopped") if vm else "absent",
        "options": _options(vm) if vm else {},
        "talos": runs.version if runs else "",
        "schematic": runs.schematic if runs else "",
        "member": member,
        "leads": bool(runs and runs.leads),
        "registered": node is not None,
        "kubelet": str(value_at(node, "status.nodeInfo.kubeletVersion") or "") if node else "",
        "cordoned": bool(spec.get("unschedulable")),
        "cordoned_by": drain.cordoned_by(node) if node else "",
        "cold_boot": cold_boot(node) if node else "",
    }


def _options(vm: vms.ObservedVM) -> dict[str, str]:
    return {name: str(vm.config[name]) for name in OPTIONS if name in vm.config}


def _pods(pods: Iterable[Obj]) -> list[dict[str, Any]]:
    """The workloads whose pods a drain evicts, each with the nodes of its pods, and how many of these are ready."""
    by_workload: dict[tuple[str, str, str], list[Obj]] = defaultdict(list)
    for pod in pods:
        kind, name = workload_of(pod)
        # What ends on a lost node has a successor elsewhere, unless a StatefulSet waits for its end.
        succeeded = bool(pod["metadata"].get("deletionTimestamp")) and kind != "StatefulSet"
        if drain.has_to_go(pod) and pod["spec"].get("nodeName") and not succeeded:
            by_workload[pod["metadata"].get("namespace", ""), kind, name].append(pod)
    return [
        {
            "namespace": namespace,
            "kind": kind,
            "name": name,
            "labels": _common([pod["metadata"].get("labels") or {} for pod in own]),
            "grace": max(pod["spec"].get("terminationGracePeriodSeconds") or 0 for pod in own),
            "nodes": {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in own},
            "ready": sum(has_condition(pod, "Ready") for pod in own),
        }
        for (namespace, kind, name), own in sorted(by_workload.items())
    ]


_OF_A_POD = ("pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name")


def _common(labels: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *rest = labels
    shared = {k: v for k, v in first.items() if all(other.get(k) == v for other in rest)}
    return {key: value for key, value in shared.items() if key not in _OF_A_POD}


def _volumes(observed: Observed) -> Iterable[dict[str, Any]]:
    """Longhorn's volumes by their claims, each with the node and the health of its replicas."""
    claims = {volume["metadata"]["name"]: value_at(volume, "spec.claimRef") or {} for volume in observed.volumes}
    down = {node["metadata"]["name"] for node in observed.nodes if any(bad_conditions(node))}
    for volume in observed.load.volumes:
        name = volume["metadata"]["name"]
        replicas = [replica for replica in observed.load.replicas if replica["spec"].get("volumeName") == name]
        homes = [replica["spec"].get("nodeID", "") for replica in replicas]
        copies = [[home, is_whole(each) and home not in down] for home, each in zip(homes, replicas, strict=True)]
        robustness = value_at(volume, "status.robustness") or "unknown"
        wanted = int(value_at(volume, "spec.numberOfReplicas") or len(copies))
        if robustness in ("degraded", "faulted") and all(whole for _, whole in copies) and len(copies) >= wanted:
            # Its replicas say nothing of it: one is rebuilt at this moment, or the engine has lost all.
            copies = [[node, robustness == "degraded" and number > 0] for number, (node, _) in enumerate(copies)]
        claim = claims.get(name, {})
        yield {
            "claim": f"{claim.get('namespace', '')}/{claim.get('name', '')}",
            "robustness": robustness,
            "wanted": wanted,
            "replicas": copies,
        }


def _home(storage: longhorn.Storage, home: Obj) -> dict[str, Any]:
    """Longhorn's entry of a node: whether it takes copies, or has its own moved, who closed it, and its space."""
    spec = home["spec"]
    return {
        "open": bool(spec.get("allowScheduling")),
        "evicts": bool(spec.get("evictionRequested")),
        "closed_by": longhorn.closed_by(home),
        "free": longhorn.free_bytes(storage, home),
    }


def share_files(context: RunContext, state: State) -> None:
    """Let the kubeconfig and the talosconfig of a lab be absent, due or up to date, as those of the platform are."""
    for name, (exists, due) in state["files"].items():
        if not exists:
            (context.home / name).unlink(missing_ok=True)
        elif due:
            write_text(context.home / name, "{}\n", mode=0o600)
        else:
            write_file(context, name)


def as_running(chosen: Params, state: State) -> Params:
    """The params with which a lab is brought up: in the versions that most nodes run, with the nodes that left them.

    Raises:
        Refused: the params do not allow a version that runs, or the place of a node.
    """
    versions = {"talos": _most(state, "talos"), "kubernetes": _most(state, "kubelet")}
    changes: dict[str, Any] = {"versions": {name: version for name, version in versions.items() if version}}
    changes |= {"nodes": state["former"]} if state["former"] else {}
    try:
        platform = params.overlay(chosen.platform, changes)
    except ParamsError as error:
        raise Refused(
            "no lab can be brought up like this platform: " + "; ".join(error.problems),
            cause="a lab begins with the versions and nodes that run, and the params do not allow them",
            remedy="bring the platform into a supported state first; the runbook health names what is not",
        ) from None
    return Params.model_construct(phase=chosen.phase, platform=platform)


def _most(state: State, key: str) -> str:
    """The version that most nodes run, the first of them in a draw; "" if none is known."""
    versions = [node[key].removeprefix("v") for node in state["nodes"].values() if node[key]]
    return max(versions, key=versions.count, default="")


def differences(live: Plan, lab: Plan) -> list[str]:
    """What one of two plans of a stage does and the other does not; nothing if their digests are equal."""
    if live.digest == lab.digest and live.waits_for == lab.waits_for:
        return []
    sides = [(action.canonical(), action) for plan in (live, lab) for action in plan.actions]
    both = [content for content, _ in sides]
    lines = [
        f"{'live' if number < len(live.actions) else 'lab'} only: {action.verb} {action.object}"
        f"{' (' + action.detail + ')' if action.detail else ''}"
        for number, (content, action) in enumerate(sides)
        if both.count(content) == 1
    ]
    return lines or ["the same actions in another order" if live.platform == lab.platform else "the params differ"]


def unlike(state: State, gates: Iterable[Check]) -> list[str]:
    """The gates that pass in the lab alone: a live run would stop there."""
    passed = {gate.name for gate in gates if gate.passed}
    return [
        f"{gate['name']}: {gate['result']}" for gate in state["gates"] if not gate["passed"] and gate["name"] in passed
    ]
