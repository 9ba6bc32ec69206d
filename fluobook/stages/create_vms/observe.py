"""What stands on Proxmox VE: three requests for each endpoint, and one for each VM that may be ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode, probe
from fluobook.errors import NotFound
from fluobook.machine.schematic import Image, image_of
from fluobook.stages.create_vms.hardware import TAG, tags_of, uuid_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.proxmox import ProxmoxClient, TaskStatus
    from fluobook.context import RunContext
    from fluobook.params import Node, ProxmoxEndpoint

WIDTH = 16
PROBE = 1.0
"""Seconds for a look at an address that should be free."""


@dataclass(frozen=True)
class Seen:
    """A virtual machine that may be ours, or that is in our way: its line in the resources and its configuration."""

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
    """What there is.

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
    vms: Mapping[str, Sequence[Seen]]
    tasks: Sequence[TaskStatus] = ()
    answering: frozenset[str] = frozenset()
    strays: Sequence[Seen] = ()

    def ours(self, node: Node) -> Seen | None:
        """The node's VM, if it exists."""
        return next((seen for seen in self.vms[node.name] if seen.is_ours(node)), None)

    def task(self, kind: str, subject: str) -> TaskStatus | None:
        """A running task of a kind on a subject (a VM's number, a file's name)."""
        return next((t for t in self.tasks if t.running and t.upid.type == kind and t.upid.id == subject), None)

    def at_work_on(self, vmid: int) -> Sequence[TaskStatus]:
        """Running tasks that make, start, stop or change a VM; a backup is none of them."""
        return [t for t in self.tasks if t.running and t.upid.type.startswith("qm") and t.upid.id == str(vmid)]


def observe(context: RunContext) -> Observation:
    """Read all endpoints side by side."""
    image = image_of((context.root / "talos" / "schematic.yaml").read_text(), context.platform.versions.talos)
    with ThreadPoolExecutor(WIDTH) as pool:
        parts = list(pool.map(lambda endpoint: _endpoint(context, endpoint, image), context.platform.proxmox))
        images = frozenset[str]().union(*(part[0] for part in parts))
        found = {name: seen for part in parts for name, seen in part[1].items()}
        tasks = [task for part in parts for task in part[2]]
        strays = [stray for part in parts for stray in part[3]]
        absent = [node for node in context.platform.nodes if not found.get(node.name)]
        answering = frozenset(address for address in pool.map(lambda node: _taken(context, node), absent) if address)
    return Observation(image, images, found, tasks, answering, strays)


def _endpoint(
    context: RunContext, endpoint: ProxmoxEndpoint, image: Image
) -> tuple[frozenset[str], dict[str, list[Seen]], list[TaskStatus], list[Seen]]:
    client = context.proxmox(endpoint.name)
    nodes = [node for node in context.platform.nodes if node.host in endpoint.hosts]
    # Tasks first: a creation that ends while we look then shows its VM whole, never as a nameless one without a task.
    tasks = client.cluster_tasks()
    resources = client.resources()
    _online(resources, nodes)
    images = frozenset(
        host
        for host in {node.host for node in nodes}
        if has_image(client, host, endpoint.image_storage, image.filename)
    )
    candidates = _candidates(resources, nodes)
    with ThreadPoolExecutor(WIDTH) as pool:
        found = list(pool.map(lambda resource: _look(client, resource), candidates.values()))
    seen = [one for one in found if one is not None]
    of_nodes = {node.name: [s for s in seen if _concerns(s, node)] for node in nodes}
    cluster = f"{TAG}-{context.platform.cluster.name}"
    strays = [s for s in seen if cluster in tags_of(s.config) and not any(s in vms for vms in of_nodes.values())]
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
    """The VMs worth a look: ours by tag, by number or by name."""
    names, numbers = {node.name for node in nodes}, {node.vmid for node in nodes}
    return {
        int(r["vmid"]): r
        for r in resources
        if r.get("type") in ("qemu", "lxc")
        and (r.get("name") in names or int(r["vmid"]) in numbers or TAG in tags_of(r))
    }


def _look(client: ProxmoxClient, resource: Mapping[str, Any]) -> Seen | None:
    """A VM's configuration; and its status, where the list does not call it running: that list is 10 s old."""
    if resource.get("type") == "lxc":
        return Seen(resource, {})
    host, vmid = resource["node"], int(resource["vmid"])
    try:
        config = client.config(host, vmid)
        if resource.get("status") != "running" and not config.get("lock"):
            resource = {**resource, "status": client.vm_status(host, vmid)["status"]}
    except NotFound:
        return None
    return Seen(resource, config)


def _concerns(seen: Seen, node: Node) -> bool:
    return seen.vmid == node.vmid or seen.resource.get("name") == node.name or uuid_of(seen.config) == node.uuid.lower()


def _taken(context: RunContext, node: Node) -> str:
    """The node's address if something answers there although its VM does not exist."""
    return node.address if probe(context.talos.address(node), timeout=PROBE).mode is not Mode.UNREACHABLE else ""
