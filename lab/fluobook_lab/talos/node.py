"""The state of Talos nodes: disks, images, services, etcd; one node, and what all nodes of a lab share."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from fluobook.params.versions import minor_of
from fluobook_lab.grpc import Endpoint
from fluobook_lab.talos.disks import enumerate_disks
from fluobook_lab.talos.resources import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.proxmox.model import VmBoot
    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.resources import Key

T = TypeVar("T")

LIVED = 100_000.0
"""Simulated seconds for which the log of etcd is written already when a lab begins: a restored one is far shorter."""
DISCOVERY_DELAY = 0.05
"""Real seconds until nodes notice that another one joined or left; many changes at once cost one round."""


@dataclass(frozen=True)
class Delays:
    """How long the phases of a node's life take, in simulated seconds."""

    boot: float = 15
    """From power-on until Talos runs."""
    leave: float = 1
    """From an accepted configuration until maintenance mode ends."""
    install: float = 40
    reboot: float = 20
    """From the request until Talos runs again."""
    cri: float = 3
    etcd: float = 10
    kubelet: float = 15
    failed: float = 35 * 60
    """From a failed step of the boot until the next attempt."""


@dataclass(frozen=True)
class EtcdMember:
    """One etcd member."""

    id: int
    hostname: str
    address: str

    @property
    def peer_url(self) -> str:
        """The URL for other members."""
        return f"https://{self.address}:2380"

    @property
    def client_url(self) -> str:
        """The URL for clients."""
        return f"https://{self.address}:2379"


@dataclass
class Etcd:
    """One etcd cluster; members and running members by the uuid of their machine.

    `announced` says whether the Kubernetes side knows the cluster; `leader` is the uuid of the last elected leader;
    `content` is the snapshot with which it began, and `since` the simulated time when its log did. `defragmented` are
    the machines whose databases were; `disarmed` is whether the alarms ended after that. `versions` are the minor
    versions of its members, and `storage` that of its data, which only grows: when all of them are newer.
    """

    members: dict[str, EtcdMember] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    announced: bool = False
    leader: str = ""
    term: int = 1
    content: bytes = b""
    since: float = -LIVED
    defragmented: set[str] = field(default_factory=set)
    disarmed: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    storage: str = "3.6"

    @property
    def has_quorum(self) -> bool:
        """Whether more than half of the members run."""
        return len(self.up) * 2 > len(self.members)

    def elected(self) -> str:
        """The machine of the leader: it leads until it is down, then the first running member; "" without a quorum."""
        if self.leader not in self.up or not self.has_quorum:
            candidates = [uuid for uuid in self.members if uuid in self.up]
            self.leader = candidates[0] if candidates and self.has_quorum else ""
            self.term += bool(self.leader)
        return self.leader

    def forfeit(self) -> str:
        """Elect another running member; its machine, "" if there is no other."""
        others = [uuid for uuid in self.members if uuid in self.up and uuid != self.elected()]
        if others:
            self.leader = others[0]
            self.term += 1
        return others[0] if others else ""

    def may_leave(self, uuid: str) -> bool:
        """Whether the members that stay have a quorum of their own, which etcd requires."""
        others = self.members.keys() - {uuid}
        return len(others & self.up) * 2 > len(others)

    def runs(self, uuid: str, version: str) -> None:
        """A member runs in a minor version; the data follows the oldest of them upwards."""
        self.versions[uuid] = version
        if self.versions.keys() >= self.members.keys():
            self.storage = max(self.storage, min(self.versions[each] for each in self.members))

    def leave(self, uuid: str) -> None:
        """Remove the member on a machine."""
        self.members.pop(uuid, None)
        self.up.discard(uuid)


@dataclass
class SystemDisk:
    """The system disk: empty, or with Talos on it.

    `image` is the installed installer image, `previous` the one before it, and `on_trial` whether the next boot falls
    back to that if it fails. `drive` is the VM's drive that has it ("scsi0"); `config` is the content of the STATE
    partition; `etcd`, the cluster to which the data belongs, `snapshot`, one that was uploaded, `images`, those of
    containerd, and whether the `kubelet` has its certificates are in EPHEMERAL. `data` is another one whenever the disk
    for volumes is empty: a new VM's, or one that was wiped.
    """

    image: str = ""
    previous: str = ""
    on_trial: bool = False
    images: set[str] = field(default_factory=set)
    drive: str = ""
    config: str = ""
    etcd: Etcd | None = None
    snapshot: bytes = b""
    kubelet: bool = False
    data: str = field(default_factory=lambda: str(uuid4()))

    def wipe(self, labels: Collection[str] = ()) -> None:
        """Wipe the disk, or only the partitions with these labels."""
        if not labels:
            self.image, self.previous, self.drive, self.on_trial = "", "", "", False
        if not labels or "STATE" in labels:
            self.config = ""
        if not labels or "EPHEMERAL" in labels:
            self.etcd, self.images, self.snapshot, self.kubelet = None, set(), b"", False


@dataclass(frozen=True)
class Image:
    """The platform, schematic and version in the name of an image or installer."""

    platform: str
    schematic: str
    version: str


@lru_cache
def parse_image(name: str) -> Image:
    """Parse "factory.talos.dev/nocloud-installer/<schematic>:<version>", or the name of an ISO with these parts."""
    schematic = re.search(r"[0-9a-f]{64}|(?<![0-9a-f])[0-9a-f]{8,63}(?![0-9a-f])", name)
    version = re.search(r"v?\d+\.\d+\.\d+(-[a-z]+\.\d+)?", name)
    number = version[0].removeprefix("v") if version else ""
    return Image("nocloud" if "nocloud" in name else "metal", schematic[0] if schematic else "", f"v{number}")


ETCD_VERSIONS = {"1.13": "3.6.12", "1.14": "3.7.1"}
"""By Talos' minor version. Data is stored in the form of the oldest member."""


def etcd_version(talos: str) -> str:
    """The etcd that a version of Talos brings, such as "3.7.1" for "v1.14.1"."""
    return ETCD_VERSIONS.get(minor_of(talos), ETCD_VERSIONS["1.13"])


@dataclass(frozen=True)
class ServiceState:
    """The state of a system service, as in `talosctl services`; `healthy` is None while it is unknown."""

    state: str
    healthy: bool | None = None
    message: str = ""

    @property
    def running(self) -> bool:
        """Whether the service runs."""
        return self.state == "Running"


UP = ServiceState("Running", healthy=True, message="Health check successful")
RUNNING = ServiceState("Running", message="Started task")
STARTING = ServiceState("Starting", message="Running pre state")
PREPARING = ServiceState("Preparing", message="Running pre state")
WAITING_FOR_CRI = ServiceState("Waiting", message='Waiting for service "cri" to be "up"')


class Call(NamedTuple):
    """One RPC that a node accepted, at `time` in simulated seconds; a dry run is not `mutating`."""

    time: float
    node: str
    path: str
    mutating: bool


class Moment(NamedTuple):
    """A node went away or came back at `time`: who is away from then on, and whether every etcd has its quorum."""

    time: float
    node: str
    up: bool
    away: tuple[str, ...]
    quorum: bool


class Cluster(Protocol):
    """The Kubernetes side of the lab; the nodes call it, and all calls return at once."""

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """The first etcd member of a cluster runs, so its API server may start. Called once for an etcd cluster."""

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A kubelet runs (on a control plane also its etcd member). The API server may not exist yet."""

    def on_node_down(self, node: TalosMachine) -> None:
        """A kubelet stopped: power off, reboot, reset. Always follows an `on_node_up`."""

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A running node accepted another configuration without a reboot."""

    async def snapshot(self, node: TalosMachine) -> bytes:
        """A snapshot of etcd, from the member on a node."""

    def logs(self, node: TalosMachine) -> Mapping[str, str]:
        """The logs of a node: "controller-runtime", "kubelet", and containers of the control plane."""


class TalosMachine:
    """A node in a virtual machine, from power-on to power-off; its `SystemDisk` outlives it.

    Args:
        vm: the virtual machine that was started.
        disk: the content of its disks.
        reserved: the reserved socket of its API, or None if no address leads to it.
        nodes: the state that all nodes share.
        describe: returns the node's resources.
    """

    def __init__(
        self,
        vm: VmBoot,
        disk: SystemDisk,
        reserved: socket.socket | None,
        nodes: Nodes,
        describe: Callable[[TalosMachine], Iterable[tuple[Key, Any]]],
    ) -> None:
        self.vm, self.disk, self.nodes = vm, disk, nodes
        self.address = nodes.address_of(vm)
        self.endpoint = Endpoint(reserved) if reserved else None
        self.state = State(lambda: describe(self))
        self.stage, self.boot_id, self.booted = "unknown", "", ""
        self.config: MachineConfiguration | None = None
        self.services: dict[str, ServiceState] = {}
        self.missing_pods: set[str] = set()
        self.node_ready = self.api_up = self.rebooting = self.kubelet_announced = False
        self.configured, self.bootstrapped = asyncio.Event(), asyncio.Event()
        self.request: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.life: asyncio.Task[None] | None = None
        self.reissue: asyncio.Task[None] | None = None
        self.boots = 0
        self.enumerate_disks()

    def __repr__(self) -> str:
        return f"TalosMachine({self.vm.name!r}, {self.stage!r})"

    @property
    def hostname(self) -> str:
        """The host name: from the configuration, else from the platform."""
        return (self.config.hostname if self.config else "") or self.vm.hostname or f"talos-{self.vm.uuid[:8]}"

    @property
    def image(self) -> Image:
        """The image that was booted: the installed one, else the one in the ISO drive."""
        return parse_image(self.booted or self.disk.image or self.vm.image)

    @property
    def in_maintenance(self) -> bool:
        """Whether the node has no configuration."""
        return self.config is None

    def enumerate_disks(self) -> None:
        """Name the disks, as the kernel does at every boot."""
        self.boots += 1
        self.disks = enumerate_disks(self.vm.disks, Random(f"{self.nodes.disk_seed} {self.vm.uuid} {self.boots}"))

    @property
    def etcd_is_up(self) -> bool:
        """Whether the node's etcd member runs."""
        return self.disk.etcd is not None and self.vm.uuid in self.disk.etcd.up

    def apply(self, config: MachineConfiguration) -> None:
        """Accept the first configuration, or one that needs no reboot."""
        before, self.config = self.config, config
        if before is None:
            self.configured.set()
            return
        self.disk.config = config.canonical
        if before.api_authorities != config.api_authorities:
            self.nodes.on_authorities(self, config)
            self.nodes.changed()
        self.publish()
        self.nodes.cluster.on_config(self, config)

    def bootstrap(self, content: bytes = b"") -> None:
        """Start etcd as the first member of a new cluster, with the content of a snapshot if there is one."""
        self.disk.etcd = Etcd(content=content, since=self.nodes.clock.now() if content else -LIVED)
        self.nodes.etcds.append(self.disk.etcd)
        self.bootstrapped.set()

    def break_connections(self, fault: str) -> None:
        """Break all connections if that fault is injected now."""
        if self.endpoint and self.nodes.faults.take(fault):
            self.endpoint.cut()

    def replace_image(self, version: str, schematic: str) -> None:
        """Run another version, or other extensions, as if they had been installed; "" keeps the schematic."""
        name, own = self.disk.image.rpartition(":")[0], self.image.schematic
        self.booted = self.disk.image = f"{name.replace(own, schematic or own)}:{version}"
        self.publish()

    def leave_etcd(self) -> None:
        """Remove the member, and its data; after a restart it would join again."""
        if self.disk.etcd:
            self.disk.etcd.leave(self.vm.uuid)
            self.disk.etcd = None
            self.set_service("etcd", ServiceState("Finished", message="Service finished successfully"))
            self.nodes.changed()

    def wipe(self, labels: Collection[str]) -> None:
        """Wipe the system disk or some of its partitions."""
        if self.disk.etcd:
            self.disk.etcd.up.discard(self.vm.uuid)
        self.disk.wipe(labels)
        if len(self.vm.disks) == 1 and (not labels or "EPHEMERAL" in labels):
            self.wipe_data()

    def wipe_data(self) -> None:
        """Empty the disk for volumes: the second one, or EPHEMERAL where there is none."""
        self.disk.data = str(uuid4())

    def restart(self, action: str, stage: str) -> None:
        """Request a "reboot" or "poweroff", and show a stage until then."""
        self.rebooting = True
        self.enter(stage)
        if not self.request.done():
            self.request.set_result(action)

    def enter(self, stage: str) -> None:
        """Change the stage."""
        self.stage = stage
        self.publish()

    def set_service(self, name: str, state: ServiceState) -> None:
        """Change the state of a service."""
        self.services[name] = state
        self.publish()

    def set_node_ready(self, *, ready: bool) -> None:
        """Set whether Kubernetes reports the node as ready."""
        if ready != self.node_ready:
            self.node_ready = ready
            self.publish()

    def publish(self) -> None:
        """Refresh the resources."""
        self.state.touch()

    def go_down(self) -> None:
        """Stop everything that runs on the node; only the disk keeps its content."""
        if self.reissue:
            self.reissue.cancel()
        if self.endpoint:
            self.endpoint.close()
        self.api_up, self.booted = False, ""
        if self.disk.etcd:
            self.disk.etcd.up.discard(self.vm.uuid)
        if self.kubelet_announced:
            self.kubelet_announced = False
            self.nodes.note(self, up=False)
            self.nodes.cluster.on_node_down(self)
        self.config, self.services, self.node_ready, self.rebooting = None, {}, False, False
        self.missing_pods = set()
        self.configured, self.bootstrapped = asyncio.Event(), asyncio.Event()
        self.nodes.changed()


class Nodes:
    """The state that all Talos nodes of a lab share.

    Args:
        sockets: reserved sockets (`fluobook_lab.grpc.reserve`) of the nodes' APIs, by address ("10.10.0.10").
        clock: the lab's clock.
        faults: the faults to inject.
        random: for ids.
        cluster: the Kubernetes side.
        leases: addresses of machines without a static one, by MAC in upper case (the DHCP server's reservations).
        extensions: returns (name, version) of the extensions in a schematic.
        has_image: whether the registry has an image of Talos or Kubernetes.
        stopped: called with the uuid of a machine that powered itself off.
        delays: how long the phases of a node's life take.
        referee: the program with Talos' own code that nodes ask whether a configuration is valid; "" for none.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        *,
        clock: Clock,
        faults: Faults,
        random: Random,
        cluster: Cluster,
        leases: Mapping[str, str] | None = None,
        extensions: Callable[[str], Sequence[tuple[str, str]]] = lambda _: (),
        has_image: Callable[[str], bool] = lambda _: True,
        stopped: Callable[[str], None] = lambda _: None,
        delays: Delays | None = None,
        referee: str = "",
    ) -> None:
        self.referee = referee
        self.clock, self.faults, self.random, self.cluster = clock, faults, random, cluster
        self.delays = delays or Delays()
        self.sockets = sockets
        self.disks: dict[str, SystemDisk] = {}
        self.disk_seed = random.getrandbits(32)
        self.nodes: dict[str, TalosMachine] = {}
        self.etcds: list[Etcd] = []
        self.calls: list[Call] = []
        self.moments: list[Moment] = []
        self._away: dict[str, str] = {}
        self.stopped, self.has_image = stopped, has_image
        self._leases, self._extensions = leases or {}, extensions
        self._waiting: set[asyncio.Event] = set()
        self._discovery: asyncio.TimerHandle | None = None

    def note(self, node: TalosMachine, *, up: bool) -> None:
        """Write down that a node went away, or came back."""
        self._away.pop(node.vm.uuid, None)
        self._away |= {} if up else {node.vm.uuid: node.vm.name}
        etcds = {id(disk.etcd): disk.etcd for disk in self.disks.values() if disk.etcd}
        quorum = all(etcd.has_quorum for etcd in etcds.values())
        self.moments.append(Moment(self.clock.now(), node.vm.name, up, tuple(sorted(self._away.values())), quorum))

    def node(self, name: str) -> TalosMachine:
        """The node that is on, by its VM's name."""
        return next(node for node in self.nodes.values() if node.vm.name == name)

    def address_of(self, vm: VmBoot) -> str:
        """The address of a machine: the static one, else its DHCP lease, else ""."""
        return vm.address.partition("/")[0] or self._leases.get(vm.mac.upper(), "")

    def extensions_of(self, image: Image) -> list[tuple[str, str]]:
        """The extensions in an image, and the schematic itself as one more, as Talos shows it."""
        schematic = [("schematic", image.schematic)] if image.schematic else []
        return [*self._extensions(image.schematic), *schematic]

    def members_of(self, cluster_id: str) -> list[TalosMachine]:
        """The nodes of a cluster that discovery lists: configured, with a running API."""
        up = (node for node in self.nodes.values() if node.config and node.api_up)
        return [node for node in up if node.config and node.config.cluster_id == cluster_id]

    def authority_for(self, config: MachineConfiguration) -> KeyPair | None:
        """The CA that signs a node's API certificate: its own, or that of a control plane which it trusts."""
        if config.is_control_plane:
            return config.authority()
        for node in self.members_of(config.cluster_id):
            other = node.config
            if (
                other
                and other.is_control_plane
                and other.authority().crt in (config.authority().crt, *config.accepted_authorities)
                and other.machine.get("token") == config.machine.get("token")
            ):
                return other.authority()
        return None

    def on_authorities(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A running node got other authorities of the Talos API."""
        raise NotImplementedError

    def etcd_to_join(self, node: TalosMachine) -> Etcd | None:
        """The running etcd cluster of a node's cluster, if it has a quorum."""
        if node.config is None:
            return None
        for other in self.members_of(node.config.cluster_id):
            if other is not node and other.etcd_is_up and other.disk.etcd and other.disk.etcd.has_quorum:
                return other.disk.etcd
        return None

    def changed(self) -> None:
        """Handle a change of a node's API or etcd: wake those who wait, and refresh all nodes soon."""
        for event in self._waiting:
            event.set()
        if self._discovery is None:
            self._discovery = asyncio.get_running_loop().call_later(DISCOVERY_DELAY, self._discover)

    def _discover(self) -> None:
        self._discovery = None
        for node in self.nodes.values():
            node.publish()

    async def until(self, get: Callable[[], T | None]) -> T:
        """Wait until `get` returns a value, and return it; checked after every change."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while (value := get()) is None:
                await event.wait()
                event.clear()
            return value
        finally:
            self._waiting.discard(event)

    def close(self) -> None:
        """Cancel the pending refresh."""
        if self._discovery is not None:
            self._discovery.cancel()
