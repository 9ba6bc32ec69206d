"""Runbook 23, nodes: removes the nodes that left the params and what lost nodes left behind, and resizes nodes.

A node is lost when its VM is gone and Kubernetes, etcd or Longhorn still know it: they forget it, and the bring-up
makes it anew. A node that left the params hands over its copies of volumes, is drained, leaves etcd by itself, is
forgotten and its VM destroyed. A node whose VM needs a power cycle for its new size is drained for it. Adding a node is
the work of the bring-up. One node at a time, control planes last; etcd
keeps its quorum at every step, or nothing begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fluobook.clients.talos.resources import EtcdMember
from fluobook.cluster_secrets import AccessFile
from fluobook.context import RunContext
from fluobook.errors import PHASE, FluobookError, Refused
from fluobook.kubernetes.kubelet_certificates import NODE_PREFIX
from fluobook.machine.contracts import value_at
from fluobook.params import Node, Platform
from fluobook.stages import approve_csrs, teardown
from fluobook.stages.bootstrap_kubernetes.plan import file_actions
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api, read_etcd
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.core.stage import Stage
from fluobook.stages.create_vms import plan as vms
from fluobook.stages.create_vms import work as resizing
from fluobook.stages.day_two import drain, longhorn

NAME = "nodes"
Obj = Mapping[str, Any]
Steps = list[tuple[str, str, str, dict[str, Any]]]
"""What is done to one node: verb, object, reason and data of each action."""
HOME, COPIES = "Longhorn's node", ("copy of ", "copies of ")


@dataclass(frozen=True)
class Observation:
    """What is known of the nodes.

    Args:
        vms: the VMs on the hosts.
        nodes: the Nodes of Kubernetes.
        members: etcd's members, as a control plane that answers sees them.
        load: what runs in the cluster.
        missing: the stage that has not run, without which there is no API.
        storage: what Longhorn has.
        talosconfig: the file, compared with what it should be.
    """

    vms: vms.Observation
    nodes: Sequence[Obj] = ()
    members: Sequence[EtcdMember] = ()
    load: drain.Load = field(default_factory=drain.Load)
    missing: str = ""
    storage: longhorn.Storage = field(default_factory=longhorn.Storage)
    talosconfig: AccessFile = field(default_factory=lambda: AccessFile(exists=False))

    def node(self, name: str) -> Obj | None:
        """The Node of that name."""
        return next((node for node in self.nodes if node["metadata"]["name"] == name), None)

    def is_healthy(self, name: str) -> bool:
        """Whether the node is Ready, so that its member of etcd counts as one that votes."""
        node = self.node(name)
        return node is not None and has_condition(node, "Ready")


def observe(context: RunContext) -> Observation:
    """Read the VMs, the Nodes, etcd, what runs, and Longhorn.

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
            remedy=f"fluobook run {PHASE} health says what is left; if the quorum is lost for good: fluobook run "
            f"{PHASE} restore",
        )
    registered, load = kube.list("v1", "Node"), drain.read_load(kube)
    return Observation(
        vms.observe(context),
        registered,
        members,
        load,
        storage=longhorn.read_storage(kube, load, registered),
        talosconfig=context.secrets.access_files(context.platform, context.home)["talosconfig"],
    )


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
    present += observation.storage.names
    names = dict.fromkeys([*present, *(name for name, vm in strays.items() if teardown.is_former_node(platform, vm))])
    lost = [name for name in names if name in known and observation.vms.ours(known[name]) is None]
    former = [name for name in names if name not in known]
    if alive := [n for n in lost if observation.is_healthy(n) or known[n].address in observation.vms.answering]:
        raise Refused(
            f"no VM is seen for {', '.join(alive)}, but the node answers or is Ready",
            cause="the API token does not see the VM, the VM was moved, or it was destroyed less than a minute ago",
            remedy=f"give the token VM.Audit, or correct nodes[].host; if the VM was just destroyed, run {NAME} again "
            "in a minute",
        )
    _keeps_quorum(observation, lost, former)
    foreign = [name for name in former if name in strays and not teardown.is_former_node(platform, strays[name])]
    leaving = [*lost, *(name for name in former if name not in foreign)]
    actions, notes = list[Action](), [f"left alone: {name}, whose {strays[name]} is not ours" for name in foreign]
    resized = {name: changes for name, node in known.items() if (changes := _changes(platform, observation, node))}
    staying = known.keys() - {*lost, *resized}
    returned = {name: steps for name in known if name in staying and (steps := _restored(observation, name))}
    for name, steps in returned.items():
        actions += _chain(name, steps, actions)
    if resized:
        vms.refuse_what_cannot_change(platform, observation.vms)
    for name, changes in resized.items():
        actions += _resize(platform, observation, name, changes, actions)
        notes.append(f"interrupted: {name}, while its VM is switched off and on; its pods move to other nodes first")
    leaving.sort(key=lambda name: (name not in lost, any(m.hostname == name for m in observation.members)))
    for name in leaving:
        actions += _remove(platform, observation, name, strays.get(name), leaving=leaving, lost=lost, before=actions)
        notes += _notes(observation, name)
    if lost:
        notes.append(f"afterwards fluobook run {PHASE} makes {', '.join(lost)} anew")
    if observation.talosconfig.exists:
        last = tuple(action.id for action in actions[-1:])
        renewed = file_actions({"talosconfig": observation.talosconfig})
        actions += [replace(each, needs=last) for each in renewed if each.data["file"] == "talosconfig"]
    kept = len(staying) - len(returned)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(notes))


def _restored(observation: Observation, name: str) -> Steps:
    """What a node needs that was to be removed or resized, and stays as it is, or that has another disk."""
    steps, reason = Steps(), "it stays"
    home = observation.storage.home(name)
    if home and observation.is_healthy(name) and (disks := longhorn.replaced_disks(home)):
        other, uuids = "another disk is in its place", sorted(filter(None, disks.values()))
        lying = replace(observation, storage=observation.storage.with_only(name, uuids))
        copies = _copies(lying, name, other, {name})
        gone = [step for step in copies if step[0] == "delete"]
        steps += [(verb, thing, why, {**data, "disks": uuids}) for verb, thing, why, data in gone]
        steps += [("renew", f"disk {disk} of {HOME} {name}", other, {"disk": disk}) for disk in sorted(disks)]
        steps += [step for step in copies if step[0] == "await"]
    if home and longhorn.closed_by(home) == NAME:
        steps.append(("uncordon", f"{HOME} {name}", reason, {}))
    if drain.cordoned_by(observation.node(name) or {}) == NAME:
        steps.append(("uncordon", f"node {name}", reason, {}))
    return steps


def _changes(platform: Platform, observation: Observation, node: Node) -> list[Action]:
    """What is done to the VM of a node that serves and needs a power cycle, or that was drained for one."""
    vm, registered = observation.vms.ours(node), observation.node(node.name)
    if vm is None or registered is None:
        return []
    changes = vms.adjust(platform, node, vm)
    resizes = observation.is_healthy(node.name) and any(action.data.get("cycle") for action in changes)
    return changes if resizes or (drain.cordoned_by(registered) == NAME and not vm.running) else []


def _resize(
    platform: Platform, observation: Observation, name: str, changes: Sequence[Action], before: Sequence[Action]
) -> list[Action]:
    """Drain a node, change its VM, and let pods come back.

    Raises:
        Refused: the drain could never end.
    """
    reason, actions = "the size of its VM changes, with a power cycle", list[Action]()
    if observation.is_healthy(name):
        seconds = platform.deadlines.drain
        drain.refuse_endless(
            [platform.node(name)],
            {name: list(drain.blockers(name, observation.load, seconds=seconds))},
            "nothing was changed",
        )
        actions = _chain(name, [("drain", f"node {name}", reason, {})], before)
    for change in changes:
        actions.append(replace(change, needs=tuple(a.id for a in (actions or list(before))[-1:]), system="node"))
    return [*actions, *_chain(name, [("uncordon", f"node {name}", reason, {})], actions)]


def _notes(observation: Observation, name: str) -> Iterator[str]:
    """What is interrupted, and what stays degraded."""
    storage, alive = observation.storage, observation.is_healthy(name)
    if alive:
        moved = len(storage.on(name))
        copies = f"; {moved} {'copy' if moved == 1 else 'copies'} of volumes move to other nodes first" if moved else ""
        yield f"interrupted: {name}, with what runs on it alone{copies}"
        return
    crowded = [
        storage.title(volume)
        for volume in sorted({each["spec"]["volumeName"] for each in storage.on(name)})
        if not set(longhorn.open_homes(storage, (name,))) - {each["spec"].get("nodeID") for each in storage.of(volume)}
    ]
    if crowded:
        yield f"degraded until there is another node for a copy: {', '.join(crowded)}"


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
                cause="the healthy members must be a majority before the removal and after it"
                + ("" if healthy else f"; {name} is down already"),
                remedy="bring the other control planes back, or add one first; if the quorum is lost for good: "
                f"fluobook run {PHASE} restore",
            )


def _chain(name: str, steps: Steps, before: Sequence[Action]) -> list[Action]:
    """Actions on one node, each after the one before, and after all of the nodes before."""
    actions: list[Action] = []
    for verb, thing, reason, data in steps:
        needs, destroys = (actions or list(before))[-1:], tuple(filter(None, (data.get("volume"),)))
        made = Action(
            f"{verb} {thing}",
            verb,
            thing,
            "the only copy: its data is lost" if destroys else "",
            reason,
            tuple(a.id for a in needs),
            "node",
            {"node": name, **data},
            destroys,
        )
        actions.append(made)
    return actions


def _members(observation: Observation, name: str, reason: str) -> Steps:
    return [
        ("delete", f"etcd member {name}", reason, {"member": member.id})
        for member in observation.members
        if member.hostname == name
    ]


def _remove(
    platform: Platform,
    observation: Observation,
    name: str,
    vm: vms.ObservedVM | None,
    *,
    leaving: Collection[str],
    lost: Collection[str],
    before: Sequence[Action],
) -> list[Action]:
    """A node that lives hands over what it has; of one that is down or gone, the others forget it.

    Raises:
        Refused: it lives, and a drain could never end, or its copies of volumes have nowhere to go.
    """
    reason, node = "its VM is gone" if name in lost else "not in the params", observation.node(name)
    alive, has_home = observation.is_healthy(name), observation.storage.home(name) is not None
    steps = Steps()
    if node is not None and alive:
        if reasons := list(_holds(name, observation, leaving, seconds=platform.deadlines.drain)):
            raise Refused(
                f"{name} cannot leave: " + "; ".join(reasons),
                cause="it would be drained or evicted for ever, or data would be lost",
                remedy="do what is said for each, then run the stage again; nothing was changed",
            )
        if has_home:
            steps.append(("evict", f"{HOME} {name}", reason, {}))
        steps.append(("drain", f"node {name}", reason, {}))
        if vm is not None:
            votes = any(member.hostname == name for member in observation.members)
            data = {"address": address_of(node), "votes": votes, **teardown.place_of(vm)}
            steps.append(("reset", f"machine {name}", reason, data))
    if not alive or vm is None:
        steps += _members(observation, name, reason)
    if node is not None:
        steps.append(("delete", f"node {name}", reason, {}))
    if not alive:
        steps += _copies(observation, name, reason, {each for each in leaving if not observation.is_healthy(each)})
    if has_home:
        steps.append(("delete", f"{HOME} {name}", reason, {}))
    actions = _chain(name, steps, before)
    if vm is not None:
        last = (actions or list(before))[-1:]
        destroyed = teardown.destruction(platform, vm, tuple(action.id for action in last), name)
        actions.append(destroyed)
    return actions


def _copies(observation: Observation, name: str, reason: str, gone: Collection[str]) -> Steps:
    """The copies of volumes that a node had: deleted, so that others are made; the only ones are named one by one."""
    storage = observation.storage
    if not storage.on(name):
        home = storage.home(name)
        handed_over = home is None or home["spec"].get("evictionRequested")
        whole = all(value_at(volume, "status.robustness") in ("healthy", "unknown") for volume in storage.volumes)
        return [] if handed_over or whole else [("await", f"volumes that {name} had", "they are degraded", {})]
    only = longhorn.only_copies(name, storage, gone)
    steps: Steps = [
        ("delete", f"copy of {storage.title(volume)} on {name}", reason, {"volume": volume}) for volume in only
    ]
    if {each["spec"]["volumeName"] for each in storage.on(name)} - set(only):
        steps.append(("delete", f"copies of volumes on {name}", reason, {}))
    return [*steps, ("await", f"volumes that {name} had", "they are degraded", {})]


def address_of(node: Obj) -> str:
    """The address of a Node in the network of the nodes."""
    addresses = value_at(node, "status.addresses") or ()
    return next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")


def _holds(name: str, observation: Observation, leaving: Collection[str], *, seconds: float) -> Iterator[str]:
    """What keeps a node from leaving: a drain that never ends, and copies of volumes that have nowhere to go."""
    moved = replace(
        observation.load, replicas=[r for r in observation.load.replicas if r["spec"].get("nodeID") != name]
    )
    yield from drain.blockers(name, moved, seconds=seconds)
    yield from longhorn.stuck(name, observation.storage, leaving)


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action; one that was done already changes nothing."""
    if "file" in action.data:
        write_file(context, action.data["file"])
        return {"file": action.data["file"]}
    if action.verb in ("change", "start"):
        return resizing.perform(context, action, report)
    if action.object.startswith("vm "):
        return teardown.perform(context, action, report)
    return _DOES[action.verb](context, action, report)


def _evict(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    return {"moved": longhorn.evict(context, action.data["node"], NAME, report)}


def _drain(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    drain.cordon(context.kube(), action.data["node"], NAME)
    return {"evicted": drain.drain(context, action.data["node"], report)}


def _await(context: RunContext, _action: Action, report: Reporter) -> None:
    longhorn.rebuilt(context, report)


def _uncordon(context: RunContext, action: Action, _report: Reporter) -> None:
    undo = longhorn.open_home if action.object.startswith(HOME) else drain.uncordon
    undo(context.kube(), action.data["node"])


def _forget(context: RunContext, action: Action, _report: Reporter) -> Mapping[str, Any] | None:
    name = action.data["node"]
    if "member" in action.data:
        return _remove_member(context, action.data["member"])
    if action.object.startswith(COPIES):
        volume, disks = action.data.get("volume", ""), action.data.get("disks", ())
        return {"deleted": longhorn.forget_copies(context, name, volume, NAME, disks)}
    if action.object.startswith(HOME):
        return longhorn.forget_home(context, name, NAME)
    return _forget_node(context, name)


def _renew(context: RunContext, action: Action, _report: Reporter) -> None:
    longhorn.renew_disk(context, action.data["node"], action.data["disk"])


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


_DOES = {
    "evict": _evict,
    "drain": _drain,
    "reset": _reset,
    "await": _await,
    "renew": _renew,
    "uncordon": _uncordon,
    "delete": _forget,
}


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Whether Kubernetes, etcd and Longhorn know the nodes of the params and no others, and the talosconfig too."""
    known = {node.name for node in context.platform.nodes}
    nodes = {node["metadata"]["name"] for node in observation.nodes}
    members = {member.hostname for member in observation.members}
    strangers, former = sorted(nodes - known), sorted(members - known)
    homes = sorted(set(observation.storage.names) - known)
    replaced = [home["metadata"]["name"] for home in observation.storage.homes if longhorn.replaced_disks(home)]
    file, again = observation.talosconfig, f"fluobook run {PHASE} {NAME}"
    return [
        Check("every node of Kubernetes is in the params", not strangers, count(len(nodes), strangers), again),
        Check("every member of etcd is in the params", not former, count(len(members), former), again),
        Check(
            "every node of Longhorn is in the params", not homes, count(len(observation.storage.homes), homes), again
        ),
        Check(
            "every disk is the one that Longhorn knows",
            not replaced,
            count(len(observation.storage.homes), replaced),
            again,
        ),
        Check(
            "the talosconfig names the nodes of the params",
            not (file.exists and file.problem),
            (file.problem or "it is up to date") if file.exists else "there is none here",
            again,
        ),
    ]


STAGE = Stage(
    23,
    NAME,
    "Remove and resize nodes, and what lost ones left behind",
    observe,
    plan,
    perform,
    verify,
    uses=("proxmox", "talos", "kubernetes"),
    widths={"node": 1},
)
