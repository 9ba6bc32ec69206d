"""What stage 1 reads of the Proxmox VE endpoints, and the plan that follows from it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode, probe
from fluobook.errors import ForeignObject, Locked, NotFound, Refused
from fluobook.machine.schematic import Image, image_of
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluobook.clients.proxmox import ProxmoxClient, TaskStatus
    from fluobook.context import RunContext
    from fluobook.params import Node, Platform, ProxmoxEndpoint


TAG = "fluobook"
MIB = 1024


@dataclass(frozen=True)
class Difference:
    """One owned field that differs from the params.

    `cold` means that a running VM takes the change over only with a power cycle.
    """

    field: str
    now: str
    wanted: str
    cold: bool = True

    def __str__(self) -> str:
        return f"{self.field} {self.now} → {self.wanted}"


def tags(platform: Platform) -> str:
    """The tags of our VMs: ours and the cluster's."""
    return f"{TAG};{TAG}-{platform.cluster.name}"


def net0(platform: Platform, node: Node) -> str:
    """The network card."""
    network = platform.network
    vlan = f",tag={network.vlan}" if network.vlan else ""
    mtu = f",mtu={network.mtu}" if network.mtu != 1500 else ""  # noqa: PLR2004 (Ethernet's own)
    return f"virtio={node.mac},bridge={network.bridge}{vlan}{mtu},firewall=0"


def disks(node: Node) -> dict[str, int]:
    """Our disks and their sizes in GiB."""
    return {"scsi0": node.boot_disk_gib} | ({"scsi1": node.data_disk_gib} if node.data_disk_gib else {})


def create_params(platform: Platform, node: Node, image: str) -> dict[str, Any]:
    """The parameters that create a node's VM.

    Args:
        platform: the platform.
        node: the node.
        image: file name of the Talos ISO on the image storage.
    """
    endpoint = platform.endpoint_of(node)
    options = ",discard=on,ssd=1" + (",iothread=1" if platform.vm.scsi_controller == "virtio-scsi-single" else "")
    params = {
        "name": node.name,
        "machine": "q35",
        "bios": platform.vm.bios,
        "cpu": platform.vm.cpu,
        "sockets": 1,
        "cores": node.cores,
        "memory": node.memory_gib * MIB,
        "balloon": 0,
        "scsihw": platform.vm.scsi_controller,
        "net0": net0(platform, node),
        "ide2": f"{endpoint.image_storage}:iso/{image},media=cdrom",
        # The empty disk falls through to the ISO; an installed one never boots the ISO again.
        "boot": "order=scsi0;ide2",
        "agent": f"enabled={int(platform.vm.agent)}",
        "onboot": int(platform.vm.on_boot),
        "serial0": "socket",
        "ostype": "l26",
        "tags": tags(platform),
        "smbios1": f"uuid={node.uuid}",
        **{disk: f"{endpoint.disk_storage}:{size}{options}" for disk, size in disks(node).items()},
    }
    if platform.vm.bios == "ovmf":
        params["efidisk0"] = f"{endpoint.disk_storage}:1,efitype=4m,pre-enrolled-keys=0"
    return params | cloud_init(platform, node)


def cloud_init(platform: Platform, node: Node) -> dict[str, Any]:
    """The drive that gives Talos its address and name before it has a configuration; none where DHCP does."""
    if platform.network.addressing == "dhcp":
        return {}
    prefix = str(platform.network.cidr).split("/")[1]
    return {
        "ide0": f"{platform.endpoint_of(node).disk_storage}:cloudinit",
        "ipconfig0": f"ip={node.address}/{prefix},gw={platform.network.gateway}",
        "nameserver": " ".join(str(server) for server in platform.network.nameservers),
    }


def uuid_of(config: Mapping[str, Any]) -> str:
    """The SMBIOS uuid in a VM's configuration, lower case; empty if there is none."""
    match = re.search(r"uuid=([0-9a-fA-F-]{36})", str(config.get("smbios1", "")))
    return match.group(1).lower() if match else ""


def tags_of(config: Mapping[str, Any]) -> set[str]:
    """The tags in a VM's configuration."""
    return {tag for tag in re.split(r"[;, ]", str(config.get("tags", ""))) if tag}


def differences(platform: Platform, node: Node, vm: ObservedVM) -> tuple[Difference, ...]:
    """The owned fields in which a VM of this cluster differs from the platform."""
    config = vm.config
    changed = [*_plain(platform, node, config), *_network(platform, node, config), *_sizes(node, config)]
    if missing := set(tags(platform).split(";")) - tags_of(config):
        changed.append(
            Difference(
                "tags", ";".join(sorted(tags_of(config))) or "none", f"with {';'.join(sorted(missing))}", cold=False
            )
        )
    if not changed and vm.running:
        changed += _pending(node, vm.resource)
    return tuple(changed)


def _plain(platform: Platform, node: Node, config: Mapping[str, Any]) -> list[Difference]:
    wanted: dict[str, tuple[Any, bool]] = {
        "name": (node.name, False),
        "cores": (node.cores, True),
        "memory": (node.memory_gib * MIB, True),
        "cpu": (platform.vm.cpu, True),
        "onboot": (int(platform.vm.on_boot), False),
    }
    return [
        Difference(field, str(config.get(field, "unset")), str(value), cold)
        for field, (value, cold) in wanted.items()
        if str(config.get(field, 0 if field == "onboot" else "")) != str(value)
    ]


def _network(platform: Platform, node: Node, config: Mapping[str, Any]) -> list[Difference]:
    now, wanted = _options(str(config.get("net0", ""))), _options(net0(platform, node))
    return [
        Difference(f"net0 {key}", now.get(key, "none"), wanted.get(key, "none"))
        for key in ("virtio", "bridge", "tag")
        if now.get(key, "").lower() != wanted.get(key, "").lower()
    ]


def _sizes(node: Node, config: Mapping[str, Any]) -> list[Difference]:
    changed = []
    for disk, size in disks(node).items():
        now = size_gib(_options(str(config.get(disk, ""))).get("size", "0"))
        if now != size:
            changed.append(Difference(disk, f"{now:g} GiB" if now else "none", f"{size} GiB", cold=False))
    return changed


def _pending(node: Node, resource: Mapping[str, Any]) -> list[Difference]:
    """What was written into the configuration but has not reached the running VM."""
    running = (int(resource.get("maxcpu", node.cores)), int(resource.get("maxmem", node.memory_gib * 2**30)) // 2**20)
    wanted = (node.cores, node.memory_gib * MIB)
    names = ("running cores", "running memory")
    return [Difference(n, str(r), str(w)) for n, r, w in zip(names, running, wanted, strict=True) if r != w]


def _options(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def size_gib(text: str) -> float:
    """A size as Proxmox VE writes it ("20G", "528K") in GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not match:
        return 0.0
    return float(match.group(1)) * {"K": 2**-20, "M": 2**-10, "G": 1, "T": 2**10, "": 2**-30}[match.group(2)]


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


WIDTH = 16
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
        return uuid_of(self.config) == node.uuid.lower() and TAG in tags_of(self.config)

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
    """

    image: Image
    images: frozenset[str]
    vms: Mapping[str, Sequence[ObservedVM]]
    tasks: Sequence[TaskStatus] = ()
    answering: frozenset[str] = frozenset()
    strays: Sequence[ObservedVM] = ()

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
    image = image_of((context.root / "talos" / "schematic.yaml").read_text(), context.platform.versions.talos)
    with ThreadPoolExecutor(WIDTH) as pool:
        parts = list(pool.map(lambda endpoint: _endpoint(context, endpoint, image), context.platform.proxmox))
        images = frozenset[str]().union(*(part[0] for part in parts))
        vms = {name: candidates for part in parts for name, candidates in part[1].items()}
        tasks = [task for part in parts for task in part[2]]
        strays = [stray for part in parts for stray in part[3]]
        absent = [node for node in context.platform.nodes if not vms.get(node.name)]
        answering = frozenset(address for address in pool.map(lambda node: _taken(context, node), absent) if address)
    return Observation(image, images, vms, tasks, answering, strays)


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
    cluster = f"{TAG}-{context.platform.cluster.name}"
    matched = [vm for candidates in of_nodes.values() for vm in candidates]
    strays = [vm for vm in vms if cluster in tags_of(vm.config) and vm not in matched]
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
        and (r.get("name") in names or int(r["vmid"]) in numbers or TAG in tags_of(r))
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
    return vm.vmid == node.vmid or vm.resource.get("name") == node.name or uuid_of(vm.config) == node.uuid.lower()


def _taken(context: RunContext, node: Node) -> str:
    """The node's address if something answers there although its VM does not exist."""
    return node.address if probe(context.talos.address(node), timeout=PROBE).mode is not Mode.UNREACHABLE else ""


NAME = "create-vms"


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 1.

    Raises:
        ForeignObject: an unmanaged VM has a number, a name or an address of the platform.
        Locked: another user's task runs on a VM of this cluster.
        Refused: a disk would have to shrink, or a VM of this cluster is not where the params say.
    """
    no_conflicts(platform, observation)
    actions = _images(platform, observation)
    kept = len(platform.hosts) - len(actions)
    cycled = ""
    for node in platform.nodes:
        ours = observation.ours(node)
        mine = _create(platform, observation, node) if ours is None else _adjust(platform, node, ours, cycled)
        cycled = next((a.id for a in mine if a.system == "cycle"), cycled)
        kept += not mine
        actions += mine
    if actions:
        no_foreign_tasks(platform, observation)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(map(_stray, observation.strays)))


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
    data = {"node": node.name, "vmid": node.vmid, "params": create_params(platform, node, observation.image.filename)}
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


def _adjust(platform: Platform, node: Node, vm: ObservedVM, cycled: str) -> list[Action]:
    changed = differences(platform, node, vm)
    _no_disk_shrinks(node, changed)
    actions = [_change(platform, node, vm, changed, cycled)] if changed else []
    if not vm.running:
        actions.append(_start(platform, node, needs=tuple(a.id for a in actions), reason="stopped"))
    return actions


def _change(platform: Platform, node: Node, vm: ObservedVM, changed: tuple[Difference, ...], cycled: str) -> Action:
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
        data={"node": node.name, "fields": [difference.field for difference in changed], "cycle": cycle},
    )


def _no_disk_shrinks(node: Node, changed: tuple[Difference, ...]) -> None:
    for difference in changed:
        if not difference.field.startswith("scsi") or difference.now == "none":
            continue
        now, wanted = (size_gib(text.replace(" GiB", "G")) for text in (difference.now, difference.wanted))
        if wanted < now:
            raise Refused(
                f"{node.name}: {difference} would shrink a disk",
                cause="a disk cannot shrink without losing what is on it",
                remedy=f"set it to {difference.now} or more in the params; a smaller disk needs a new node",
            )
