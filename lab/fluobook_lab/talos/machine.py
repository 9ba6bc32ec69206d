"""One Talos node: what it is at this moment, and the things that can be asked of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluobook_lab.grpc import Endpoint
from fluobook_lab.talos import boot
from fluobook_lab.talos.describe import describe
from fluobook_lab.talos.disk import device_name, read_image
from fluobook_lab.talos.state import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.disk import Image, SystemDisk
    from fluobook_lab.talos.machines import TalosMachines
    from fluobook_lab.talos.service_state import ServiceState
    from fluobook_lab.vm import VmBoot


class TalosMachine:
    """A node in a virtual machine, from power-on to power-off; what survives is in its `SystemDisk`.

    Args:
        vm: the machine as it was powered on.
        disk: what its disks hold.
        reserved: the reserved socket of its API, or None where no address leads to it.
        world: all nodes of the lab.
    """

    def __init__(self, vm: VmBoot, disk: SystemDisk, reserved: socket.socket | None, world: TalosMachines) -> None:
        self.vm, self.disk, self.world = vm, disk, world
        self.address = world.address_of(vm)
        self.endpoint = Endpoint(reserved) if reserved else None
        self.state = State(lambda: describe(self))
        self.stage = "unknown"
        self.config: MachineConfiguration | None = None
        self.services: dict[str, ServiceState] = {}
        self.node_ready = False
        self.api_up = False
        self.rebooting = False
        self.told_up = False
        self._applied = asyncio.Event()
        self._bootstrap = asyncio.Event()
        self._order: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(boot.live(self), name=f"talos {vm.name}")

    def __repr__(self) -> str:
        return f"TalosMachine({self.vm.name!r}, {self.stage!r})"

    @property
    def hostname(self) -> str:
        """Its host name: the configuration's, else the platform's."""
        return (self.config.hostname if self.config else "") or self.vm.hostname or f"talos-{self.vm.uuid[:8]}"

    @property
    def image(self) -> Image:
        """What it runs: what is installed, else what is in the drive."""
        return read_image(self.disk.image or self.vm.image)

    @property
    def in_maintenance(self) -> bool:
        """Whether it has no configuration."""
        return self.config is None

    @property
    def devices(self) -> dict[str, int]:
        """Its disks by device name, with their size in GiB."""
        return {device_name(disk): gib for disk, gib in self.vm.disks}

    @property
    def etcd_is_up(self) -> bool:
        """Whether its etcd member runs."""
        return self.disk.etcd is not None and self.vm.uuid in self.disk.etcd.up

    def apply(self, config: MachineConfiguration) -> None:
        """Take a configuration that changes nothing which needs a reboot, or the first one."""
        first, self.config = self.config is None, config
        if first:
            self._applied.set()
            return
        self.disk.config = config.canonical
        self.publish()
        self.world.cluster.on_config(self, config)

    def stage_for_reboot(self, config: MachineConfiguration) -> None:
        """Keep a configuration for the next start."""
        self.disk.config = config.canonical

    def bootstrap(self) -> None:
        """Start etcd as the first member of a new cluster; from now on its data directory is not empty."""
        self.disk.etcd = self.world.new_etcd()
        self._bootstrap.set()

    def lose(self, fault: str) -> None:
        """Break all connections if that fault is to happen now."""
        if self.endpoint and self.world.faults.take(fault):
            self.endpoint.cut()

    def wipe(self, labels: Collection[str], *, leave: bool) -> None:
        """Empty the system disk or some of its partitions, leaving etcd first if asked to."""
        if etcd := self.disk.etcd:
            etcd.up.discard(self.vm.uuid)
            if leave:
                etcd.leave(self.vm.uuid)
        self.disk.wipe(labels)

    def order(self, what: str, stage: str) -> None:
        """Leave the current life for "reboot" or "poweroff", showing a stage meanwhile."""
        self.rebooting = True
        self.enter(stage)
        if not self._order.done():
            self._order.set_result(what)

    def enter(self, stage: str) -> None:
        """Be in a stage from now on."""
        self.stage = stage
        self.publish()

    def set_service(self, name: str, state: ServiceState) -> None:
        """Show a service in a state."""
        self.services[name] = state
        self.publish()

    def set_node_ready(self, *, ready: bool) -> None:
        """Hear from Kubernetes whether the node is ready there."""
        if ready != self.node_ready:
            self.node_ready = ready
            self.publish()

    def publish(self) -> None:
        """Let the resources be brought up to date."""
        self.state.touch()

    async def applied(self) -> None:
        """Wait for the first configuration."""
        await self._applied.wait()

    async def bootstrapped(self) -> None:
        """Wait for a Bootstrap call."""
        await self._bootstrap.wait()

    async def ordered(self) -> str:
        """Wait for an order; another one may be given afterwards."""
        order = await self._order
        self._order = asyncio.get_running_loop().create_future()
        return order

    def forget_life(self) -> None:
        """Be as before the first boot: memory is lost, the disk is not."""
        self.config, self.services, self.node_ready, self.rebooting = None, {}, False, False
        self._applied, self._bootstrap = asyncio.Event(), asyncio.Event()

    def power_off(self) -> asyncio.Task[None]:
        """Stop at once; what is returned ends when everything has gone."""
        self._life.cancel()
        boot.go_down(self)
        return self._life
