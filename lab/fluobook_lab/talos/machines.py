"""All Talos nodes of a lab: they boot in virtual machines, find each other, and tell the Kubernetes side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from fluobook_lab.talos.boot import Delays
from fluobook_lab.talos.disk import SystemDisk
from fluobook_lab.talos.etcd import Etcd
from fluobook_lab.talos.machine import TalosMachine

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.disk import Image
    from fluobook_lab.vm import VmBoot

T = TypeVar("T")

DISCOVERY = 0.05
"""Real seconds until nodes see that another one came or went; so a hundred that come at once cost one round."""


class Call(NamedTuple):
    """One RPC that a node let in, at `time` in world seconds; a dry run is not `mutating`."""

    time: float
    node: str
    path: str
    mutating: bool


class Cluster(Protocol):
    """The Kubernetes side of the lab, as nodes tell it what happens; all calls return at once."""

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """The first etcd member of a cluster runs: its API server may start. Once in the life of an etcd."""

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A kubelet runs (on a control plane: and its etcd member). The API server need not be there yet."""

    def on_node_down(self, node: TalosMachine) -> None:
        """That kubelet stopped: power off, reboot, reset. Always follows an `on_node_up`."""

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A running node took another configuration without a reboot."""

    def logs(self, node: TalosMachine) -> Mapping[str, str]:
        """What runs on a node has to say: "controller-runtime", "kubelet", and containers of the control plane."""


class NoCluster:
    """Nobody listens."""

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Nothing happens."""

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Nothing happens."""

    def on_node_down(self, node: TalosMachine) -> None:
        """Nothing happens."""

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Nothing happens."""

    def logs(self, _node: TalosMachine) -> Mapping[str, str]:
        """Nothing is said."""
        return {}


class TalosMachines:
    """Boots Talos in virtual machines (`fluobook_lab.vm.Machines`).

    Args:
        sockets: reserved sockets (`fluobook_lab.grpc.reserve`) for nodes' API, by the node's address ("10.10.0.10").
        clock: the world clock.
        faults: `talos.…`.
        random: for ids.
        cluster: who is told of bootstraps and nodes.
        leases: addresses of machines without a static one, by MAC in upper case (the DHCP server's reservations).
        extensions: (name, version) of what a schematic id brings.
        stopped: told the uuid of a machine that powered itself off.
        delays: how long things take, in world seconds.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        *,
        clock: Clock,
        faults: Faults,
        random: Random,
        cluster: Cluster | None = None,
        leases: Mapping[str, str] | None = None,
        extensions: Callable[[str], Sequence[tuple[str, str]]] = lambda _: (),
        stopped: Callable[[str], None] = lambda _: None,
        delays: Delays | None = None,
    ) -> None:
        self.clock, self.faults, self.random = clock, faults, random
        self.cluster: Cluster = cluster or NoCluster()
        self.delays = delays or Delays()
        self.nodes: dict[str, TalosMachine] = {}
        self.etcds: list[Etcd] = []
        self.calls: list[Call] = []
        self.stopped = stopped
        self._sockets, self._leases, self._extensions = sockets, leases or {}, extensions
        self._disks: dict[str, SystemDisk] = {}
        self._waiting: set[asyncio.Event] = set()
        self._discovery: asyncio.TimerHandle | None = None

    def power_on(self, vm: VmBoot) -> None:
        """Boot a machine; its disks hold what they held when it was last on."""
        self.power_off(vm.uuid)
        disk = self._disks.setdefault(vm.uuid, SystemDisk())
        self.nodes[vm.uuid] = TalosMachine(vm, disk, self._sockets.get(self.address_of(vm)), self)

    def power_off(self, uuid: str) -> None:
        """Cut its power."""
        if node := self.nodes.pop(uuid, None):
            node.power_off()

    def forget(self, uuid: str) -> None:
        """The machine was destroyed, disks and all."""
        self.power_off(uuid)
        self._disks.pop(uuid, None)

    async def stop(self) -> None:
        """Cut everybody's power."""
        lives = [node.power_off() for node in self.nodes.values()]
        self.nodes.clear()
        if self._discovery is not None:
            self._discovery.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def node(self, name: str) -> TalosMachine:
        """A node that is on, by its VM's name."""
        return next(node for node in self.nodes.values() if node.vm.name == name)

    def address_of(self, vm: VmBoot) -> str:
        """Where a machine is: its static address, else its DHCP lease, else nowhere ("")."""
        return vm.address.partition("/")[0] or self._leases.get(vm.mac.upper(), "")

    def extensions_of(self, image: Image) -> list[tuple[str, str]]:
        """The extensions in an image, and the schematic itself as one more, as Talos shows it."""
        own = [("schematic", image.schematic)] if image.schematic else []
        return [*self._extensions(image.schematic), *own]

    def members_of(self, cluster_id: str) -> list[TalosMachine]:
        """The nodes of a cluster that discovery knows: configured, and on the network."""
        found = (node for node in self.nodes.values() if node.config and node.api_up)
        return [node for node in found if node.config and node.config.cluster_id == cluster_id]

    def authority_for(self, config: MachineConfiguration) -> KeyPair | None:
        """Who signs a node's API certificate: itself, or a control plane of the same authority and token (trustd)."""
        if config.is_control_plane:
            return config.authority()
        for node in self.members_of(config.cluster_id):
            theirs = node.config
            if theirs and theirs.is_control_plane and _same_trust(theirs, config):
                return theirs.authority()
        return None

    def new_etcd(self) -> Etcd:
        """A new etcd cluster; two of them in one lab are a split brain."""
        self.etcds.append(Etcd())
        return self.etcds[-1]

    def etcd_to_join(self, node: TalosMachine) -> Etcd | None:
        """A cluster that a node's control planes run already."""
        if node.config is None:
            return None
        for other in self.members_of(node.config.cluster_id):
            if other is not node and other.etcd_is_up and other.disk.etcd and other.disk.etcd.has_quorum:
                return other.disk.etcd
        return None

    def asked(self, node: TalosMachine, path: str, *, mutating: bool) -> None:
        """Remember a call."""
        self.calls.append(Call(self.clock.now(), node.vm.name, path, mutating))

    def changed(self) -> None:
        """A node's API or etcd came or went: wake who waits, and let nodes see each other's members soon."""
        for event in self._waiting:
            event.set()
        if self._discovery is None:
            self._discovery = asyncio.get_running_loop().call_later(DISCOVERY, self._discover)

    def _discover(self) -> None:
        self._discovery = None
        for node in self.nodes.values():
            node.publish()

    async def until(self, find: Callable[[], T | None]) -> T:
        """What `find` finds, as soon as it finds something."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while (found := find()) is None:
                await event.wait()
                event.clear()
            return found
        finally:
            self._waiting.discard(event)


def _same_trust(one: MachineConfiguration, other: MachineConfiguration) -> bool:
    return one.authority().crt == other.authority().crt and one.machine.get("token") == other.machine.get("token")
