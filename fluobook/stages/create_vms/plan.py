"""What stage 1 reads of the Proxmox VE endpoints, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluobook.clients.proxmox import ProxmoxClient, TaskStatus
from fluobook.clients.talos import Mode, probe
from fluobook.context import RunContext
from fluobook.errors import PHASE, TALOSCTL, ForeignObject, Locked, NotFound, Refused
from fluobook.files import read_text
from fluobook.machine.schematic import Image, image_of
from fluobook.params import Node, Platform, ProxmoxEndpoint
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.create_vms import settings


def no_conflicts(platform: Platform, observation: Observation) -> None:
    """Require that every number, name and address of the platform is free or belongs to its own VM.

    Raises:
        ForeignObject: an unmanaged VM has a number, a name or an address of the platform.
        Refused: a VM of this cluster is not where the params say.
    """
    conflicts = [reason for node in platform.nodes for reason in _foreign(platform, node, observation)]
    if conflicts:
        raise ForeignObject(
            "; ".join(conflicts),
            cause="somebody else uses it; fluobook knows its own VMs by SMBIOS uuid and tag, never by number or name",
            remedy="choose another name or address for the node, or pin another number (nodes[].vmid), in the params",
        )
    for node in platform.nodes:
        _placed_as_declared(node, observation.ours(node))


def no_foreign_tasks(platform: Platform, observation: Observation) -> None:
    """Require that nobody else is changing a VM of this cluster; a backup is waited for later.

    Raises:
        Locked: another user has a running task on it; the message names the user.
    """
    for node in platform.nodes:
        ours, own = observation.ours(node), platform.endpoint_of(node).token_id
        for task in observation.tasks_on(ours.vmid) if ours else ():
            if task.upid.user != own:
                raise Locked(
                    f"{task.upid.user} is changing {node.name}: task {task.upid.type} on {ours}",
                    cause="another operator, or another program, changes this VM at this moment",
                    remedy=f"wait for the end of task {task.upid}, then run the stage again",
                )


def _foreign(platform: Platform, node: Node, observation: Observation) -> Iterator[str]:
    for vm in observation.vms[node.name]:
        if not vm.is_ours(node) and not _being_created(platform, node, vm, observation):
            yield f"{vm} has {_shared(node, vm)} of {node.name} and is not managed by fluobook"
    if node.address in observation.answering:
        yield f"something answers at {node.address}, the address of {node.name}, although its VM does not exist"


def _shared(node: Node, vm: ObservedVM) -> str:
    if vm.vmid == node.vmid:
        return f"the number {node.vmid}"
    return "the name" if vm.resource.get("name") == node.name else "the uuid, but not the tag,"


def _being_created(platform: Platform, node: Node, vm: ObservedVM, observation: Observation) -> bool:
    """A VM that is being created has neither name nor uuid yet; our own running task identifies it."""
    own = platform.endpoint_of(node).token_id
    tasks = [task for task in observation.tasks_on(node.vmid) if task.upid.type == "qmcreate" and task.upid.user == own]
    return vm.vmid == node.vmid and vm.lock == "create" and bool(tasks)


def _placed_as_declared(node: Node, ours: ObservedVM | None) -> None:
    if ours is None or (ours.vmid == node.vmid and ours.resource.get("node") == node.host):
        return
    raise Refused(
        f"{node.name} is {ours}, and the params say {node.vmid} on {node.host}",
        cause="the VM was moved, or the params were changed after it was made",
        remedy=f"set host: {ours.resource.get('node')} and vmid: {ours.vmid} for {node.name} in the params, "
        "or move the VM back",
    )


PROBE = 1.0
"""Timeout in seconds for the probe of an address that should be free."""


@dataclass(frozen=True)
class ObservedVM:
    """A virtual machine that may be ours, or conflicts with one: its line in the resources and its configuration."""

    resource: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def vmid(self) -> int:
        """Its number."""
        return int(self.resource["vmid"])

    @property
    def lock(self) -> str:
        """The name of the lock on it, if there is one."""
        return str(self.config.get("lock") or self.resource.get("lock") or "")

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.resource.get("status") == "running"

    def is_ours(self, node: Node) -> bool:
        """Whether it is this node's VM: by uuid and by tag."""
        return settings.uuid_of(self.config) == node.uuid.lower() and settings.TAG in settings.tags_of(self.config)

    def __str__(self) -> str:
        return f"VM {self.vmid} ({self.resource.get('name') or 'without a name'}) on {self.resource.get('node')}"


@dataclass(frozen=True)
class Observation:
    """The state of the Proxmox VE endpoints.

    Args:
        image: the Talos image that nodes boot.
        images: the hosts that have it.
        vms: for each node all VMs that have its number, its name or its uuid.
        tasks: running tasks.
        answering: addresses of absent nodes at which something answers already.
        strays: VMs with this cluster's tag that belong to no node of the params.
        without_network: hosts of absent nodes on which the VNet of stage host-network is not available.
    """

    image: Image
    images: frozenset[str]
    vms: Mapping[str, Sequence[ObservedVM]]
    tasks: Sequence[TaskStatus] = ()
    answering: frozenset[str] = frozenset()
    strays: Sequence[ObservedVM] = ()
    without_network: Sequence[str] = ()

    def ours(self, node: Node) -> ObservedVM | None:
        """The node's VM, if it exists."""
        return next((vm for vm in self.vms[node.name] if vm.is_ours(node)), None)

    def task(self, kind: str, subject: str) -> TaskStatus | None:
        """A running task of a kind on a subject (a VM's number, a file's name)."""
        return next((t for t in self.tasks if t.running and t.upid.type == kind and t.upid.id == subject), None)

    def tasks_on(self, vmid: int) -> Sequence[TaskStatus]:
        """Running tasks that make, start, stop or change a VM; a backup is none of them."""
        return [t for t in self.tasks if t.running and t.upid.type.startswith("qm") and t.upid.id == str(vmid)]


def observe(context: RunContext) -> Observation:
    """Read all endpoints in parallel."""
    image = image_of(read_text(context.root / "talos" / "schematic.yaml"), context.platform.versions.talos)
    parts = in_parallel(lambda endpoint: _endpoint(context, endpoint, image), context.platform.proxmox)
    images = frozenset[str]().union(*(part[0] for part in parts))
    vms = {name: candidates for part in parts for name, candidates in part[1].items()}
    tasks = [task for part in parts for task in part[2]]
    strays = [stray for part in parts for stray in part[3]]
    absent = [node for node in context.platform.nodes if not vms.get(node.name)]
    answering = frozenset(filter(None, in_parallel(lambda node: _taken(context, node), absent)))
    without = [] if context.platform.wireguard is None else _without_network(context, absent)
    return Observation(image, images, vms, tasks, answering, strays, without)


def _without_network(context: RunContext, absent: Sequence[Node]) -> list[str]:
    """The hosts of absent nodes that do not have the VNet yet."""
    platform = context.platform
    vxlan = platform.wireguard.vxlan if platform.wireguard else None
    hosts = {node.host: platform.endpoint_of(node).name for node in absent} if vxlan else {}
    zones = in_parallel(lambda item: context.proxmox(item[1]).zone_status(item[0]), hosts.items())
    return [host for host, zone in zip(hosts, zones, strict=True) if vxlan and zone.get(vxlan.zone) != "available"]


def _endpoint(
    context: RunContext, endpoint: ProxmoxEndpoint, image: Image
) -> tuple[frozenset[str], dict[str, list[ObservedVM]], list[TaskStatus], list[ObservedVM]]:
    client = context.proxmox(endpoint.name)
    nodes = [node for node in context.platform.nodes if node.host in endpoint.hosts]
    # Read the tasks first: a creation that ends between the two reads then shows its complete VM, never a nameless one
    # without a task.
    tasks = client.cluster_tasks()
    resources = client.resources()
    _online(resources, nodes)
    images = frozenset(
        host
        for host in {node.host for node in nodes}
        if has_image(client, host, endpoint.image_storage, image.filename)
    )
    candidates = _candidates(resources, nodes)
    snapshots = in_parallel(lambda resource: _inspect(client, resource), candidates.values())
    vms = [vm for vm in snapshots if vm is not None]
    of_nodes = {node.name: [vm for vm in vms if _concerns(vm, node)] for node in nodes}
    cluster = f"{settings.TAG}-{context.platform.cluster.name}"
    matched = [vm for candidates in of_nodes.values() for vm in candidates]
    strays = [vm for vm in vms if cluster in settings.tags_of(vm.config) and vm not in matched]
    return images, of_nodes, tasks, strays


def _online(resources: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> None:
    known = {r["node"]: r.get("status") for r in resources if r.get("type") == "node"}
    for host in {node.host for node in nodes}:
        if known.get(host) != "online":
            raise NotFound(
                f"Proxmox VE host {host} is {known.get(host) or 'not there'}; known are {', '.join(sorted(known))}",
                system="proxmox",
                remedy="correct nodes[].host and proxmox[].hosts in the params, or bring the host up",
            )


def has_image(client: ProxmoxClient, host: str, storage: str, filename: str) -> bool:
    """Whether an ISO of that name is on a host's storage."""
    wanted = f"{storage}:iso/{filename}"
    return any(volume["volid"] == wanted for volume in client.storage_content(host, storage, "iso"))


def _candidates(resources: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> dict[int, Mapping[str, Any]]:
    """The VMs to inspect: those with our tag, or with a number or name of the platform."""
    names, numbers = {node.name for node in nodes}, {node.vmid for node in nodes}
    return {
        int(r["vmid"]): r
        for r in resources
        if r.get("type") in ("qemu", "lxc")
        and (r.get("name") in names or int(r["vmid"]) in numbers or settings.TAG in settings.tags_of(r))
    }


def _inspect(client: ProxmoxClient, resource: Mapping[str, Any]) -> ObservedVM | None:
    """A VM's configuration; and its status, where the list does not call it running: that list is 10 s old."""
    if resource.get("type") == "lxc":
        return ObservedVM(resource, {})
    host, vmid = resource["node"], int(resource["vmid"])
    try:
        config = client.config(host, vmid)
        if resource.get("status") != "running" and not config.get("lock"):
            resource = {**resource, "status": client.vm_status(host, vmid)["status"]}
    except NotFound:
        return None
    return ObservedVM(resource, config)


def _concerns(vm: ObservedVM, node: Node) -> bool:
    return (
        vm.vmid == node.vmid or vm.resource.get("name") == node.name or settings.uuid_of(vm.config) == node.uuid.lower()
    )


def _taken(context: RunContext, node: Node) -> str:
    """The node's address if something answers there although its VM does not exist."""
    return node.address if probe(context.talos.address(node), timeout=PROBE).mode is not Mode.UNREACHABLE else ""


NAME = "create-vms"


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 1.

    Raises:
        ForeignObject: an unmanaged VM has a number, a name or an address of the platform.
        Locked: another user's task runs on a VM of this cluster.
        Refused: a setting cannot be changed in place, or a VM of this cluster is not where the params say.
    """
    no_conflicts(platform, observation)
    refuse_what_cannot_change(platform, observation)
    actions = _images(platform, observation)
    kept = len(platform.hosts) - len(actions)
    cycled = ""
    for node in platform.nodes:
        ours = observation.ours(node)
        mine = _create(platform, observation, node) if ours is None else adjust(platform, node, ours, cycled)
        cycled = next((a.id for a in mine if a.system == "cycle"), cycled)
        kept += not mine
        actions += mine
    if actions:
        no_foreign_tasks(platform, observation)
    notes, waits_for = list(map(_stray, observation.strays)), ""
    if cycled:
        notes.append(
            f"pods are not drained before a power cycle here: fluobook run {PHASE} nodes drains each node first"
        )
    if hosts := ", ".join(observation.without_network):
        notes, waits_for = [*notes, f"VNet {platform.network.bridge} is not available on {hosts}"], "host-network"
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits_for, tuple(notes))


def _stray(vm: ObservedVM) -> str:
    """The note about a VM of this cluster whose node is not in the params any more; it is never removed here."""
    return (
        f"left alone: {vm} has this cluster's tag, and no node of the params is it; put its node back, or drain it,"
        " remove it from Kubernetes and Talos, then destroy the VM"
    )


def _images(platform: Platform, observation: Observation) -> list[Action]:
    return [
        Action(
            f"image {host}",
            "download",
            f"image {observation.image.filename}",
            detail=f"to {host}, Talos {platform.versions.talos}",
            reason="a download of it is running"
            if observation.task("download", observation.image.filename)
            else f"not on {host}",
            system=f"proxmox:{host}",
            data={"host": host, "file": observation.image.filename, "url": observation.image.url},
        )
        for host in platform.hosts
        if host not in observation.images
    ]


def _create(platform: Platform, observation: Observation, node: Node) -> list[Action]:
    data = {
        "node": node.name,
        "vmid": node.vmid,
        "params": settings.create_params(platform, node, observation.image.filename),
    }
    create = Action(
        f"create {node.name}",
        "create",
        f"vm {node.name}",
        detail=_detail(node),
        reason="its creation is running" if observation.task("qmcreate", str(node.vmid)) else f"not on {node.host}",
        needs=(f"image {node.host}",),
        system=f"proxmox:{platform.endpoint_of(node).name}",
        data=data,
    )
    return [create, _start(platform, node, needs=(create.id,), reason="new")]


def _start(platform: Platform, node: Node, *, needs: tuple[str, ...] = (), reason: str) -> Action:
    system = f"proxmox:{platform.endpoint_of(node).name}"
    return Action(
        f"start {node.name}", "start", f"vm {node.name}", node.address, reason, needs, system, {"node": node.name}
    )


def _detail(node: Node) -> str:
    data = f" + {node.data_disk_gib} GiB" if node.data_disk_gib else ""
    return f"{node.cores} vCPU  {node.memory_gib} GiB  {node.boot_disk_gib} GiB{data}  {node.address}"


def differences(platform: Platform, node: Node, vm: ObservedVM) -> list[settings.Difference]:
    """The settings in which a VM differs from the params, or in which a running VM differs from its configuration."""
    changed = list(settings.differing(platform, node, vm.config))
    if changed or not vm.running:
        return changed
    running = {"cores": int(vm.resource.get("maxcpu", node.cores))}
    running["memory"] = int(vm.resource.get("maxmem", node.memory_gib * 2**30)) // 2**20
    wanted = {"cores": node.cores, "memory": node.memory_gib * settings.MIB}
    return [
        settings.Difference("running", option, str(running[option]), str(value), settings.CYCLE)
        for option, value in wanted.items()
        if running[option] != value
    ]


def adjust(platform: Platform, node: Node, vm: ObservedVM, cycled: str = "") -> list[Action]:
    """The change of a VM that differs from the params, and its start if it is stopped.

    Args:
        platform: the params.
        node: the VM's node.
        vm: the VM.
        cycled: the id of the power cycle that comes before.
    """
    changed = differences(platform, node, vm)
    actions = [_change(platform, node, vm, changed, cycled)] if changed else []
    if not vm.running:
        actions.append(_start(platform, node, needs=tuple(a.id for a in actions), reason="stopped"))
    return actions


def _change(
    platform: Platform, node: Node, vm: ObservedVM, changed: Sequence[settings.Difference], cycled: str
) -> Action:
    """Nodes that need a power cycle wait for each other: one at a time."""
    cycle = vm.running and any(difference.cold for difference in changed)
    return Action(
        f"change {node.name}",
        "change",
        f"vm {node.name}",
        detail=", ".join(str(difference) for difference in changed) + (", with a power cycle" if cycle else ""),
        reason="differs from the params",
        needs=(cycled,) if cycle and cycled else (),
        system="cycle" if cycle else f"proxmox:{platform.endpoint_of(node).name}",
        data={"node": node.name, "fields": list(dict.fromkeys(d.option for d in changed)), "cycle": cycle},
    )


def refuse_what_cannot_change(platform: Platform, observation: Observation) -> None:
    """Name every setting that cannot be changed in place, and the way to change it.

    Raises:
        Refused: there is one.
    """
    refused: dict[str, str] = {}
    for node in platform.nodes:
        vm = observation.ours(node)
        if vm and platform.vm.pool and (pool := str(vm.resource.get("pool", ""))) != platform.vm.pool:
            move = f"pvesh set /pools/{platform.vm.pool} --vms {vm.vmid} --allow-move 1"
            refused[f"{node.name}: pool {pool or 'none'} → {platform.vm.pool}"] = f"move it: {move}"
        differences = list(settings.differing(platform, node, vm.config)) if vm else []
        moved = (each.now for each in differences if (each.option, each.part) == ("ipconfig0", "ip"))
        address = next((now for now in moved if now[:1].isdigit()), str(node.address))  # where it answers until then
        for difference in differences:
            if remedy := _remedy(difference, node, address):
                text = f"{node.name}: {difference}" + (
                    " would shrink a disk" if difference.treatment is settings.GROW else ""
                )
                refused[text] = remedy
    if refused:
        raise Refused(
            "; ".join(refused),
            cause="the VM was created with other params, and this cannot be changed in place",
            remedy="; ".join(dict.fromkeys(refused.values())),
        )


def _remedy(difference: settings.Difference, node: Node, address: str) -> str:
    """How to bring about a change that is refused, on a node that has `address` now; "" for one that is planned."""
    if difference.treatment is settings.MOVE:
        return (
            f"keep {difference.now or 'none'} in the params (disk_storage), or move the disk in Proxmox VE: "
            f"qm disk move {node.vmid} {difference.option} {difference.wanted} --delete 1"
        )
    if difference.treatment is settings.REPLACE:
        return (
            f"keep {difference.now or 'none'}, or replace the node: drain it, reset it ({TALOSCTL} "
            f"-n {address} reset), delete the Node and its VM, then run the stages again "
            "(docs/how-to/change-vms.md)"
        )
    now, wanted = (settings.size_gib(text.replace(" GiB", "G")) for text in (difference.now, difference.wanted))
    if difference.treatment is settings.GROW and wanted < now:
        return f"set it to {difference.now} or more in the params; a smaller disk needs a new node"
    return ""
