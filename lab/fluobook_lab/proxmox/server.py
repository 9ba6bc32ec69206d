"""A Proxmox VE endpoint of the lab on a socket, and what a test or a world may arrange in it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from fluobook_lab.http import HttpServer
from fluobook_lab.proxmox import drives, power
from fluobook_lab.proxmox.api import application
from fluobook_lab.proxmox.context import Durations, World
from fluobook_lab.proxmox.locks import set_lock
from fluobook_lab.proxmox.site import GIB, Host, Site, Storage, Vm, Volume
from fluobook_lab.proxmox.tasks import Tasks

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.proxmox.access import Token
    from fluobook_lab.vm import Machines


class ProxmoxLab(HttpServer):
    """One Proxmox VE endpoint of the lab: a host, or a cluster of hosts that share it.

    Args:
        hosts: the nodes.
        storages: what every node has.
        tokens: who may log in, and what they may do.
        clock: the world clock.
        faults: what is to go wrong.
        machines: who boots what runs in the virtual machines.
        images: the size in bytes of what can be downloaded from a URL, None for what is not there.
        guest_agent: the network interfaces that the agent in a running machine (by uuid) reports, None if none runs.
        random: for uuids and hardware addresses that Proxmox VE makes up.
        version: of Proxmox VE.
        durations: how long work takes.
        planned: (vmid, name, host) of machines that are going to be made, for the faults that put others in their way.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        storages: Sequence[Storage],
        tokens: Sequence[Token],
        *,
        clock: Clock,
        faults: Faults,
        machines: Machines,
        images: Callable[[str], int | None],
        guest_agent: Callable[[str], list[dict[str, Any]] | None] = lambda _: None,
        random: Random | None = None,
        version: str = "9.0.10",
        durations: Durations | None = None,
        planned: Sequence[tuple[int, str, str]] = (),
    ) -> None:
        self.site = Site(tuple(hosts), tuple(storages), tuple(tokens), version=version)
        self.tasks = Tasks(clock)
        self.durations = durations or Durations()
        self._world = World(
            site=self.site,
            tasks=self.tasks,
            clock=clock,
            faults=faults,
            machines=machines,
            images=images,
            guest_agent=guest_agent,
            random=random or Random(0),
            durations=self.durations,
        )
        super().__init__(application(self._world), clock)
        self._foreign(planned)

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen, and begin to refresh what /cluster/resources shows."""
        await super().start(sock, ssl_context)
        self.tasks.later(self._pvestatd())

    async def stop(self) -> None:
        """Stop listening; workers die with the host."""
        await super().stop()
        await self.tasks.stop()

    def add_vm(
        self,
        vmid: int,
        name: str,
        host: str,
        *,
        config: Mapping[str, str] | None = None,
        disk_gib: int = 32,
        disk_storage: str | None = None,
        running: bool = False,
    ) -> Vm:
        """Put a machine of somebody else there; one that is `running` is not booted by the lab."""
        where = disk_storage or next(name for name, kind in self.site.storages.items() if "images" in kind.content)
        volid = self.site.free_disk_name(host, where, vmid)
        self.site.volumes(host, where)[volid] = Volume(volid, "images", disk_gib * GIB, vmid)
        options = {"cores": "2", "memory": "4096", "scsi0": f"{volid},size={disk_gib}G", "boot": "order=scsi0"}
        options |= {"net0": drives.settle(self._world, {"net0": "virtio,bridge=vmbr0"})["net0"]}
        options |= {"smbios1": f"uuid={drives.new_uuid(self._world)}", "name": name}
        vm = Vm(vmid, host, options | dict(config or {}), running=running)
        self.site.vms[vmid] = vm
        return vm

    def set_lock(self, vmid: int, lock: str, *, seconds: float | None = None) -> None:
        """Lock a machine as a backup or a migration does, for so many world seconds or until it is removed."""
        set_lock(self._world, self.site.vms[vmid], lock, seconds)

    def remove_lock(self, vmid: int) -> None:
        """What `qm unlock` does."""
        self.site.vms[vmid].config.pop("lock", None)

    def guest_stopped(self, uuid: str) -> None:
        """The guest has switched itself off."""
        for vm in self.site.vms.values():
            if vm.uuid == uuid:
                power.halt(self._world, vm, pull_plug=False)

    async def _pvestatd(self) -> None:
        while True:
            for vm in self.site.vms.values():
                vm.listed = (vm.name, "running" if vm.running else "stopped")
            await self._world.clock.sleep(self.durations.stale)

    def _foreign(self, planned: Sequence[tuple[int, str, str]]) -> None:
        """Somebody else's machines where ours are going to be."""
        if not planned:
            return
        vmid, name, host = planned[0]
        if self._world.faults.on("proxmox.foreign-vmid"):
            self.add_vm(vmid, "prod-db", host, running=True)
        if self._world.faults.on("proxmox.foreign-vm-with-our-name"):
            self.add_vm(max(vmid for vmid, _, _ in planned) + 1000, name, host, running=True)
