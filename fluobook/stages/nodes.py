"""Runbook 23, nodes: removes the nodes that left the params, and what lost nodes left behind.

A node is lost when its VM is gone and Kubernetes or etcd still know it: they forget it, and the bring-up makes it anew.
A node that left the params is drained, leaves etcd by itself, is forgotten and its VM destroyed. Adding a node is the
work of the bring-up. One node at a time, control planes last; etcd keeps its quorum at every step, or nothing begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluobook.clients.talos.resources import EtcdMember
from fluobook.context import RunContext
from fluobook.errors import KUBECTL, PHASE, FluobookError, Refused
from fluobook.kubernetes.kubelet_certificates import NODE_PREFIX
from fluobook.machine.contracts import value_at
from fluobook.params import Node, Platform
from fluobook.stages import approve_csrs, teardown
from fluobook.stages.core import drain
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api, read_etcd
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.core.stage import Stage
from fluobook.stages.create_vms import plan as vms

NAME = "nodes"
Obj = Mapping[str, Any]


@dataclass(frozen=True)
class Observation:
    """What is known of the nodes.

    Args:
        vms: the VMs on the hosts.
        nodes: the Nodes of Kubernetes.
        members: etcd's members, as a control plane that answers sees them.
        load: what runs in the cluster.
        missing: the stage that has not run, without which there is no API.
    """

    vms: vms.Observation
    nodes: Sequence[Obj] = ()
    members: Sequence[EtcdMember] = ()
    load: drain.Load = field(default_factory=drain.Load)
    missing: str = ""

    def node(self, name: str) -> Obj | None:
        """The Node of that name."""
        return next((node for node in self.nodes if node["metadata"]["name"] == name), None)

    def is_healthy(self, name: str) -> bool:
        """Whether the node is Ready, so that its member of etcd counts as one that votes."""
        node = self.node(name)
        return node is not None and has_condition(node, "Ready")


def observe(context: RunContext) -> Observation:
    """Read the VMs, the Nodes, etcd and what runs.

    Raises:
        FluobookError: the API, or etcd on every control plane, does not answer.
    """
    kube = api(context)
    if isinstance(kube, Missing):
        return Observation(vms.observe(context), missing=kube.stage)
    reports = in_parallel(lambda node: read_etcd(context.talos.client(node)), context.platform.control_planes)
    members = next((report.members for report in reports if report.members), ())
    if not members:
        raise FluobookError(
            "no control plane reports the members of etcd: " + "; ".join(report.error for report in reports),
            cause="etcd has lost its quorum, or no control plane can be reached",
            remedy=f"fluobook run {PHASE} health says what is left; without a quorum only a snapshot helps",
        )
    return Observation(vms.observe(context), kube.list("v1", "Node"), members, drain.read_load(kube))


def plan(platform: Platform, observation: Observation) -> Plan:
    """The nodes to forget and to remove.

    Raises:
        Refused: etcd would lose its quorum, a drain could never end, the only replica of a volume is on a node, or a
            node that seems lost lives.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), observation.missing)
    known = {node.name: node for node in platform.nodes}
    strays = {str(vm.resource.get("name")): vm for vm in observation.vms.strays}
    present = [node["metadata"]["name"] for node in observation.nodes]
    present += [member.hostname for member in observation.members]
    names = dict.fromkeys([*present, *(name for name, vm in strays.items() if teardown.is_former_node(platform, vm))])
    lost = [name for name in names if name in known and observation.vms.ours(known[name]) is None]
    former = [name for name in names if name not in known]
    if alive := [n for n in lost if observation.is_healthy(n) or known[n].address in observation.vms.answering]:
        raise Refused(
            f"{', '.join(alive)}: no VM of it is on its host, and yet it answers or is Ready",
            cause="the API token does not see the VM, the VM was moved, or it was destroyed less than a minute ago",
            remedy="give the token VM.Audit, correct nodes[].host, or run it again: a node that lives is not lost",
        )
    _keeps_quorum(observation, lost, former)
    actions, notes = list[Action](), list[str]()
    back = [name for name in known if name not in lost and drain.cordoned_by(observation.node(name) or {}) == NAME]
    for name in back:
        actions += _chain(name, [("uncordon", f"node {name}", "it is in the params again", {})], actions)
    for name in lost:
        actions += _forget(observation, name, actions)
    for name in sorted(former, key=lambda name: any(m.hostname == name for m in observation.members)):
        vm = strays.get(name)
        if vm is not None and not teardown.is_former_node(platform, vm):
            notes.append(f"left alone: {name}, whose {vm} is not ours")
            continue
        actions += _remove(platform, observation, name, vm, actions)
    if lost:
        notes.append(f"{', '.join(lost)}: fluobook run {PHASE} makes a lost node anew, once it is forgotten")
    return Plan(NAME, tuple(actions), len(known) - len(lost) - len(back), platform.digest_data(), notes=tuple(notes))


def _keeps_quorum(observation: Observation, lost: Sequence[str], former: Sequence[str]) -> None:
    """Go through the removals in their order: etcd must be able to decide each, and have a quorum after it."""
    voters = {member.hostname: observation.is_healthy(member.hostname) for member in observation.members}
    for name in (*lost, *former):
        if name not in voters:
            continue
        decides = sum(voters.values())
        before, healthy = len(voters), voters.pop(name)
        after = sum(voters.values())
        if decides * 2 <= before or after * 2 <= len(voters):
            raise Refused(
                f"etcd would have no quorum without {name}: {after} of {len(voters)} other members are healthy",
                cause="a member is removed only by a majority, and what remains must be one"
                + ("" if healthy else "; this one is down already"),
                remedy="bring the other control planes back, or add one first; without a quorum only a snapshot helps",
            )


def _chain(name: str, steps: Sequence[tuple[str, str, str, dict[str, Any]]], before: Sequence[Action]) -> list[Action]:
    """Actions on one node, each after the one before, and after all of the nodes before."""
    actions: list[Action] = []
    for verb, thing, reason, data in steps:
        needs = (actions or list(before))[-1:]
        made = Action(
            f"{verb} {thing}", verb, thing, "", reason, tuple(a.id for a in needs), "node", {"node": name, **data}
        )
        actions.append(made)
    return actions


def _forget(observation: Observation, name: str, before: Sequence[Action]) -> list[Action]:
    """A lost node: its VM is gone, and what is on its disks with it."""
    steps = _members(observation, name, "its VM is gone")
    if observation.node(name):
        steps.append(("delete", f"node {name}", "its VM is gone", {}))
    return _chain(name, steps, before)


def _members(observation: Observation, name: str, reason: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [
        ("delete", f"etcd member {name}", reason, {"member": member.id})
        for member in observation.members
        if member.hostname == name
    ]


def _remove(
    platform: Platform, observation: Observation, name: str, vm: vms.ObservedVM | None, before: Sequence[Action]
) -> list[Action]:
    reason, node = "not in the params", observation.node(name)
    steps: list[tuple[str, str, str, dict[str, Any]]] = []
    alive = observation.is_healthy(name)
    if node is not None and alive:
        if reasons := list(_holds(name, observation, seconds=platform.deadlines.drain)):
            raise Refused(
                f"{name} cannot leave: " + "; ".join(reasons),
                cause="it would be drained for ever, or data would be lost",
                remedy="do what is said for each, then run the stage again; nothing was changed",
            )
        steps.append(("drain", f"node {name}", reason, {}))
        if vm is not None:
            votes = any(member.hostname == name for member in observation.members)
            steps.append(
                (
                    "reset",
                    f"machine {name}",
                    reason,
                    {"address": address_of(node), "votes": votes, **teardown.place_of(vm)},
                )
            )
    if not alive or vm is None:
        steps += _members(observation, name, reason)
    if node is not None:
        steps.append(("delete", f"node {name}", reason, {}))
    actions = _chain(name, steps, before)
    if vm is not None:
        last = (actions or list(before))[-1:]
        destroyed = teardown.destruction(platform, vm, tuple(action.id for action in last), name)
        actions.append(destroyed)
    return actions


def address_of(node: Obj) -> str:
    """The address of a Node in the network of the nodes."""
    addresses = value_at(node, "status.addresses") or ()
    return next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")


def _holds(name: str, observation: Observation, *, seconds: float) -> Iterator[str]:
    """What keeps a node from leaving: a drain that never ends, and volumes whose only replica is on it."""
    yield from drain.blockers(name, observation.load, seconds=seconds)
    if volumes := sorted(drain.last_replicas(name, observation.load)):
        yield (
            f"the only replica of {', '.join(volumes[: drain.SHOWN])} is on it: let Longhorn evict it ({KUBECTL} -n "
            f"longhorn-system edit nodes.longhorn.io {name}: allowScheduling false, evictionRequested true)"
        )


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action; one that was done already changes nothing."""
    name = action.data.get("node", "")
    if action.object.startswith("vm "):
        return teardown.perform(context, action, report)
    if action.verb == "drain":
        drain.cordon(context.kube(), name, NAME)
        return {"evicted": drain.drain(context, name, report)}
    if action.verb == "reset":
        return _reset(context, action, report)
    if action.verb == "uncordon":
        drain.uncordon(context.kube(), name)
        return None
    if "member" in action.data:
        return _remove_member(context, action.data["member"])
    return _forget_node(context, name)


def _forget_node(context: RunContext, name: str) -> Mapping[str, Any]:
    """Delete a Node, and before it the requests of its kubelet: approve-csrs would take them for a stranger's."""
    kube = context.kube()
    own = [r.name for r in approve_csrs.requests_of(context) if r.requestor == f"{NODE_PREFIX}{name}"]
    for request in own:
        kube.delete(approve_csrs.API, approve_csrs.KIND, request)
    return {"requests": own, "deleted": kube.delete("v1", "Node", name)}


def _remove_member(context: RunContext, member: str) -> Mapping[str, Any]:
    """Have a control plane that answers remove a member; one that is gone already is fine."""
    for node in context.platform.control_planes:
        if any(each.id == member for each in read_etcd(context.talos.client(node)).members):
            context.talos.client(node, "os:admin").remove_etcd_member(member)
            return {"member": member}
    return {"member": "gone"}


def _reset(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Let the machine leave etcd and wipe itself; it powers off when it has."""
    place = action.data["host"], action.data["vmid"]
    client = context.proxmox(context.platform.endpoint_at(place[0]).name)
    if client.vm_status(*place)["status"] == "stopped":
        return {"state": "stopped"}
    machine: Node = context.platform.nodes[0].model_copy(
        update={"name": action.data["node"], "address": action.data["address"]}
    )
    talos = context.talos.client(machine, "os:admin")
    if action.data["votes"]:
        report.evidence(leader=talos.forfeit_leadership() or "another member")
    talos.reset(graceful=True, reboot=False)
    report("leaves etcd and wipes its disk")

    def stopped() -> bool | None:
        return True if client.vm_status(*place)["status"] == "stopped" else None

    context.wait_until("upgrade", f"{action.data['node']} to power off", stopped, interval=0.5)
    return {"state": "reset"}


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Whether Kubernetes and etcd know the nodes of the params and no others."""
    known = {node.name for node in context.platform.nodes}
    nodes = {node["metadata"]["name"] for node in observation.nodes}
    members = {member.hostname for member in observation.members}
    strangers, former = sorted(nodes - known), sorted(members - known)
    return [
        Check("Kubernetes has no node that the params do not have", not strangers, count(len(nodes), strangers)),
        Check("etcd has no member that the params do not have", not former, count(len(members), former)),
    ]


STAGE = Stage(
    23,
    NAME,
    "Remove nodes, and what lost ones left behind",
    observe,
    plan,
    perform,
    verify,
    uses=("proxmox", "talos", "kubernetes"),
    widths={"node": 1},
)
