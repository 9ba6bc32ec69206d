"""What a lab's Proxmox VE consists of: hosts, storages with their volumes, and virtual machines."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.proxmox.errors import PveError, died
from fluobook_lab.proxmox.options import NET, UNITS, parse, read_net

if TYPE_CHECKING:
    from fluobook_lab.proxmox.access import Token

GIB = UNITS["G"]


@dataclass(frozen=True)
class Host:
    """A node of the cluster."""

    name: str
    bridges: tuple[str, ...] = ("vmbr0",)
    cores: int = 16
    memory_gib: int = 64
    online: bool = True


@dataclass(frozen=True)
class Storage:
    """A storage as storage.cfg defines it: content types as in Proxmox VE (images, iso, import, snippets…).

    `type` is dir or lvmthin; `used_gib` is taken by things that the lab knows nothing else of.
    """

    name: str
    content: tuple[str, ...] = ("images", "iso", "import", "snippets")
    type: str = "dir"
    size_gib: int = 1000
    used_gib: int = 0
    shared: bool = False


@dataclass
class Volume:
    """A disk or a file on a storage; `size` is in bytes."""

    volid: str
    content: str
    size: int
    vmid: int = 0


@dataclass
class Vm:
    """A virtual machine; `pending` and `deleted` take effect with its next start, `flock` is the config file's lock."""

    vmid: int
    host: str
    config: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    running: bool = False
    started: float = 0.0
    listed: tuple[str, str] = ("", "unknown")  # name and status when pvestatd last looked
    flock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def lock(self) -> str:
        """What the configuration is locked for: create, backup…, "" for nothing."""
        return self.config.get("lock", "")

    @property
    def name(self) -> str:
        """Its name; one that has none yet is called after its id."""
        return self.config.get("name") or f"VM {self.vmid}"

    @property
    def effective(self) -> dict[str, str]:
        """The configuration with all that is pending."""
        return {key: value for key, value in (self.config | self.pending).items() if key not in self.deleted}

    @property
    def digest(self) -> str:
        """SHA-1 over the configuration file."""
        lines = [f"{key}: {value}" for key, value in sorted(self.config.items())]
        lines += [f"pending {key}: {value}" for key, value in sorted(self.pending.items())]
        lines += [f"delete {key}" for key in sorted(self.deleted)]
        return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()

    @property
    def uuid(self) -> str:
        """Its SMBIOS uuid; "" while it is being created."""
        return parse(self.config.get("smbios1", ""), "uuid").get("uuid", "")

    def check_lock(self) -> None:
        """Refuse while it is locked."""
        if self.lock:
            raise died(f"VM is locked ({self.lock})")


class Site:
    """All hosts, storages and machines behind one endpoint.

    Args:
        hosts: the nodes.
        storages: each host has all of them.
        tokens: who may log in.
        version: of Proxmox VE, such as 9.0.10.
    """

    def __init__(
        self, hosts: tuple[Host, ...], storages: tuple[Storage, ...], tokens: tuple[Token, ...], *, version: str
    ) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.storages = {storage.name: storage for storage in storages}
        self.tokens = {token.id: token for token in tokens}
        self.version = version
        self.vms: dict[int, Vm] = {}
        self._volumes: dict[tuple[str, str], dict[str, Volume]] = {}
        self._storage_locks: dict[tuple[str, str], asyncio.Lock] = {}

    def host(self, name: str) -> Host:
        """The node of that name; a request for one that is off line cannot be passed on to it."""
        host = self.hosts.get(name)
        if host is None:
            raise died(
                f"hostname lookup '{name}' failed - failed to get address info for: {name}: Name or service not known"
            )
        if not host.online:
            raise PveError(595, "No route to host")
        return host

    def storage(self, name: str) -> Storage:
        """The storage of that name."""
        if name not in self.storages:
            raise died(f"storage '{name}' does not exist")
        return self.storages[name]

    def vm(self, host: str, vmid: int) -> Vm:
        """The machine with that id on that node."""
        self.host(host)
        vm = self.vms.get(vmid)
        if vm is None or vm.host != host:
            raise died(f"Configuration file 'nodes/{host}/qemu-server/{vmid}.conf' does not exist")
        return vm

    def check_unused(self, vmid: int) -> None:
        """Refuse an id that any machine in the cluster has."""
        if vm := self.vms.get(vmid):
            raise died(f"unable to create VM {vmid} - VM {vmid} already exists on node '{vm.host}'")

    def volumes(self, host: str, storage: str) -> dict[str, Volume]:
        """The volumes on a storage as that host sees it, by volume id."""
        where = "" if self.storage(storage).shared else host
        return self._volumes.setdefault((where, storage), {})

    def storage_lock(self, host: str, storage: str) -> asyncio.Lock:
        """The cluster-wide lock under which volumes are allocated."""
        where = "" if self.storage(storage).shared else host
        return self._storage_locks.setdefault((where, storage), asyncio.Lock())

    def free(self, host: str, storage: str) -> int:
        """Bytes left on a storage; disks are thin and take nothing until something is written to them."""
        settled = self.storage(storage)
        files = sum(volume.size for volume in self.volumes(host, storage).values() if volume.content != "images")
        return max(0, (settled.size_gib - settled.used_gib) * GIB - files)

    def free_disk_name(self, host: str, storage: str, vmid: int) -> str:
        """The volume id of a machine's next disk on a storage."""
        taken = self.volumes(host, storage)
        directory = self.storage(storage).type == "dir"
        number = 0
        while True:
            name = f"vm-{vmid}-disk-{number}"
            volid = f"{storage}:{vmid}/{name}.raw" if directory else f"{storage}:{name}"
            if volid not in taken:
                return volid
            number += 1

    def taken_macs(self) -> set[str]:
        """The hardware addresses of all machines."""
        nets = (value for vm in self.vms.values() for key, value in vm.config.items() if NET.fullmatch(key))
        return {read_net(value)[1].upper() for value in nets}
