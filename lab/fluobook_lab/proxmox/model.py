"""The state behind one Proxmox VE endpoint: hosts, storages, volumes, virtual machines, API tokens and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fluobook_lab.proxmox.options import NET, UNITS, PveError, TaskError, failed, forbidden, invalid, parse, parse_net

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
    from random import Random

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Answer, Faults

GIB = UNITS["G"]

_PRIVILEGES = """
    Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit
    Pool.Allocate Pool.Audit SDN.Allocate SDN.Audit SDN.Use
    User.Modify Sys.AccessNetwork Sys.Audit Sys.Console Sys.Modify Sys.PowerMgmt Sys.Syslog
    VM.Allocate VM.Audit VM.Backup VM.Clone VM.Console VM.Migrate VM.PowerMgmt VM.Snapshot VM.Snapshot.Rollback
    VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory
    VM.Config.Network VM.Config.Options
"""
PRIVILEGES = tuple(_PRIVILEGES.split())
"""The privileges that exist in both PVE 8 and 9."""

AGENT = {8: ("VM.Monitor",), 9: ("VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted")}


def administrator(major: int = 9) -> dict[str, tuple[str, ...]]:
    """Every privilege on every path, as in the role Administrator."""
    return {"/": (*PRIVILEGES, *AGENT[major])}


@dataclass(frozen=True)
class Token:
    """An API token: `id` is user@realm!name, `grants` are privileges by path."""

    id: str
    secret: str = field(repr=False)
    grants: Mapping[str, Iterable[str]] = field(default_factory=administrator)

    def privileges(self, path: str) -> frozenset[str]:
        """The privileges at a path; the entry of the nearest path above it decides."""
        parts = [part for part in path.split("/") if part]
        for count in range(len(parts), -1, -1):
            if (parent := "/" + "/".join(parts[:count])) in self.grants:
                return frozenset(self.grants[parent])
        return frozenset()

    def may(self, path: str, *privileges: str) -> bool:
        """Whether the token has all of the privileges at the path."""
        return self.privileges(path).issuperset(privileges)

    def need(self, path: str, *privileges: str) -> None:
        """Raise a 403 that names the first missing privilege, if one is missing."""
        for privilege in privileges:
            if not self.may(path, privilege):
                raise forbidden(path, privilege)

    def permissions(self, path: str | None = None) -> dict[str, dict[str, int]]:
        """The answer of GET /access/permissions: all paths with a grant, or the given path."""
        paths = [path] if path else sorted(self.grants)
        by_path = {each: dict.fromkeys(sorted(self.privileges(each)), 1) for each in paths}
        return {each: privileges for each, privileges in by_path.items() if privileges or path}


def authenticate(header: str, tokens: Mapping[str, Token]) -> Token:
    """The token of an Authorization header.

    Raises:
        PveError: 401; for a header in another form, Proxmox VE reports a missing login ticket.
    """
    scheme, _, credentials = header.partition("=")
    if scheme != "PVEAPIToken" or "=" not in credentials:
        raise PveError(401, "No ticket")
    token_id, _, secret = credentials.rpartition("=")
    token = tokens.get(token_id)
    if token is None or token.secret != secret:
        raise PveError(401, "Authentication failed!")
    return token


@dataclass(frozen=True)
class Host:
    """A node of the Proxmox VE cluster."""

    name: str
    bridges: tuple[str, ...] = ("vmbr0",)
    cores: int = 16
    memory_gib: int = 64
    online: bool = True
    cpu_features: frozenset[str] = frozenset({"aes", "avx2", "pclmulqdq", "popcnt", "sse4_1", "sse4_2"})


@dataclass(frozen=True)
class Storage:
    """A storage as in storage.cfg, with Proxmox VE's content types (images, iso, import, snippets, …).

    `type` is dir or lvmthin; `used_gib` is space that something outside the lab's model occupies.
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
    """A virtual machine.

    `pending` and `deleted` are changes that the next start applies. `flock` is the lock on the configuration file.
    `listed` is the name and status at the last refresh of pvestatd.
    """

    vmid: int
    host: str
    config: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    running: bool = False
    started: float = 0.0
    listed: tuple[str, str] = ("", "unknown")
    pool: str = ""
    flock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def lock(self) -> str:
        """The reason why the configuration is locked (create, backup, …), "" for none."""
        return self.config.get("lock", "")

    @property
    def name(self) -> str:
        """The VM's name; derived from its id while it has none."""
        return self.config.get("name") or f"VM {self.vmid}"

    @property
    def status(self) -> str:
        """The power state: "running" or "stopped"."""
        return "running" if self.running else "stopped"

    @property
    def cores(self) -> int:
        """Virtual CPUs over all sockets."""
        return int(self.config.get("sockets", 1)) * int(self.config.get("cores", 1))

    @property
    def memory_mib(self) -> int:
        """Memory in MiB."""
        return int(parse(self.config.get("memory", "512"), "current")["current"])

    @property
    def agent_enabled(self) -> bool:
        """Whether the option `agent` is on."""
        return parse(self.config.get("agent", "0"), "enabled").get("enabled") == "1"

    @property
    def effective(self) -> dict[str, str]:
        """The configuration with all pending changes."""
        return {key: value for key, value in (self.config | self.pending).items() if key not in self.deleted}

    @property
    def digest(self) -> str:
        """SHA-1 of the configuration file."""
        lines = [f"{key}: {value}" for key, value in sorted(self.config.items())]
        lines += [f"pending {key}: {value}" for key, value in sorted(self.pending.items())]
        lines += [f"delete {key}" for key in sorted(self.deleted)]
        return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()

    @property
    def uuid(self) -> str:
        """The SMBIOS uuid; "" while the VM is being created."""
        return parse(self.config.get("smbios1", ""), "uuid").get("uuid", "")

    def check_lock(self) -> None:
        """Raise an error if the VM is locked."""
        if self.lock:
            raise failed(f"VM is locked ({self.lock})")


SDN_KINDS = ("zones", "vnets", "subnets", "controllers", "fabrics", "nodes", "prefix-lists", "route-maps")


def _no_objects() -> dict[str, dict[str, dict[str, Any]]]:
    return {kind: {} for kind in SDN_KINDS}


@dataclass
class Sdn:
    """The SDN of an endpoint: what is configured and what was applied, by kind and id; `failed` nodes did not reload.

    `lock` is the token of whoever locked the configuration, "" for nobody. `keys` are the private keys of WireGuard
    interfaces, by node and name.
    """

    configured: dict[str, dict[str, dict[str, Any]]] = field(default_factory=_no_objects)
    running: dict[str, dict[str, dict[str, Any]]] = field(default_factory=_no_objects)
    failed: set[str] = field(default_factory=set)
    lock: str = ""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tunnel:
    """A WireGuard interface of a node: its address with prefix, and its configuration as `wg setconf` reads it."""

    address: str
    configuration: str = field(repr=False)


class Inventory:
    """All hosts, storages and virtual machines behind one endpoint.

    Args:
        hosts: the nodes.
        storages: every host has all of them.
        tokens: the API tokens that are accepted.
        version: of Proxmox VE, such as 9.0.10.
    """

    def __init__(
        self, hosts: tuple[Host, ...], storages: tuple[Storage, ...], tokens: tuple[Token, ...], *, version: str
    ) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.storages = {storage.name: storage for storage in storages}
        self.tokens = {token.id: token for token in tokens}
        self.version = version
        self.pools: set[str] = set()
        self.cpu_models: set[str] = set()
        self.vms: dict[int, Vm] = {}
        self.sdn = Sdn()
        self.firewall: dict[str, list[dict[str, Any]]] = {host.name: [] for host in hosts}
        self._volumes: dict[tuple[str, str], dict[str, Volume]] = {}
        self._storage_locks: dict[tuple[str, str], asyncio.Lock] = {}

    def host(self, name: str) -> Host:
        """The node with that name; an error 595 if it is offline, because the request cannot be forwarded to it."""
        host = self.hosts.get(name)
        if host is None:
            raise failed(
                f"hostname lookup '{name}' failed - failed to get address info for: {name}: Name or service not known"
            )
        if not host.online:
            raise PveError(595, "No route to host")
        return host

    def storage(self, name: str) -> Storage:
        """The storage with that name."""
        if name not in self.storages:
            raise failed(f"storage '{name}' does not exist")
        return self.storages[name]

    def vm(self, host: str, vmid: int) -> Vm:
        """The VM with that id on that node."""
        self.host(host)
        vm = self.vms.get(vmid)
        if vm is None or vm.host != host:
            raise failed(f"Configuration file 'nodes/{host}/qemu-server/{vmid}.conf' does not exist")
        return vm

    def check_unused(self, vmid: int) -> None:
        """Raise an error if any VM in the cluster has the id."""
        if vm := self.vms.get(vmid):
            raise failed(f"unable to create VM {vmid} - VM {vmid} already exists on node '{vm.host}'")

    def volumes(self, host: str, storage: str) -> dict[str, Volume]:
        """The volumes on a storage of a host, by volume id."""
        return self._volumes.setdefault(("" if self.storage(storage).shared else host, storage), {})

    def storage_lock(self, host: str, storage: str) -> asyncio.Lock:
        """The lock that an allocation on a storage holds."""
        return self._storage_locks.setdefault(("" if self.storage(storage).shared else host, storage), asyncio.Lock())

    def free(self, host: str, storage: str) -> int:
        """Free bytes of a storage; disks are thin and count as empty."""
        definition = self.storage(storage)
        files = sum(volume.size for volume in self.volumes(host, storage).values() if volume.content != "images")
        return max(0, (definition.size_gib - definition.used_gib) * GIB - files)

    def free_disk_name(self, host: str, storage: str, vmid: int) -> str:
        """The volume id for the next disk of a VM on a storage."""
        taken = self.volumes(host, storage)
        directory = self.storage(storage).type == "dir"
        number = 0
        while True:
            name = f"vm-{vmid}-disk-{number}"
            volid = f"{storage}:{vmid}/{name}.raw" if directory else f"{storage}:{name}"
            if volid not in taken:
                return volid
            number += 1

    def macs(self) -> set[str]:
        """The MAC addresses of all VMs."""
        nets = (value for vm in self.vms.values() for key, value in vm.config.items() if NET.fullmatch(key))
        return {parse_net(value)[1].upper() for value in nets}


@dataclass
class Task:
    """A task with its worker; `exit` is "" while it runs. `began` and `ended` are in simulated seconds."""

    upid: str
    node: str
    type: str
    id: str
    user: str
    pid: int
    start: int
    began: float
    log: list[str] = field(default_factory=list)
    exit: str = ""
    ended: float = 0.0

    def _shown(self) -> dict[str, object]:
        names = ("upid", "node", "type", "id", "pid")
        return {name: getattr(self, name) for name in names} | {"pstart": self.pid, "starttime": self.start}

    def owner(self) -> dict[str, object]:
        """Who started it: the user, and the token."""
        user, _, token = self.user.partition("!")
        return {"user": user, "tokenid": token}

    def status(self) -> dict[str, object]:
        """The answer of GET …/status."""
        shown = self._shown() | self.owner() | {"status": "stopped" if self.exit else "running"}
        return shown | ({"exitstatus": self.exit} if self.exit else {})

    def listed(self, now: float) -> dict[str, object]:
        """The task's item in GET /cluster/tasks."""
        shown = self._shown() | {"user": self.user}
        if not self.exit:
            return shown | {"uptime": int(now - self.began)}
        return shown | {"endtime": self.start + int(self.ended - self.began), "status": self.exit, "saved": "1"}


class Tasks:
    """All tasks of one endpoint, oldest first.

    Args:
        clock: the lab's clock.
        fails: returns what a fault lets tasks of a type fail with.
    """

    def __init__(self, clock: Clock, *, fails: Callable[[str], Answer | None]) -> None:
        self._clock, self._fails = clock, fails
        self._epoch = time.time()
        self._pid = 4096
        self._workers: set[asyncio.Task[None]] = set()
        self.all: dict[str, Task] = {}

    def fork(self, node: str, type_: str, id_: str, user: str, work: Callable[[Task], Awaitable[None]]) -> str:
        """Start a worker and return its UPID; an error of the work becomes the task's exit status."""
        self._pid += 1
        start = int(self._epoch + self._clock.now())
        upid = f"UPID:{node}:{self._pid:08X}:{self._pid:08X}:{start:08X}:{type_}:{id_}:{user}:"
        task = Task(upid, node, type_, id_, user, pid=self._pid, start=start, began=self._clock.now())
        self.all[upid] = task
        self.run_in_background(self._run(task, work))
        return upid

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that is not a Proxmox VE task until it ends or the endpoint stops."""
        worker = asyncio.create_task(work)
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _run(self, task: Task, work: Callable[[Task], Awaitable[None]]) -> None:
        try:
            if answer := self._fails(task.type):
                raise TaskError(answer.reason)  # noqa: TRY301
            await work(task)
        except (TaskError, PveError) as error:
            task.log.append(f"TASK ERROR: {error}")
            task.exit = str(error)
        except Exception as error:  # noqa: BLE001 - a defect of the lab must not leave a task that never ends
            task.log.append(f"TASK ERROR: {error!r}")
            task.exit = f"worker died: {error!r}"
        else:
            task.log.append("TASK OK")
            task.exit = "OK"
        finally:
            task.ended = self._clock.now()

    def find(self, upid: str) -> Task:
        """The task with a UPID.

        Raises:
            PveError: 400, the task does not exist.
        """
        if upid not in self.all:
            raise invalid(upid="no such task" if upid.startswith("UPID:") else "unable to parse worker upid")
        return self.all[upid]

    async def stop(self) -> None:
        """Cancel all workers."""
        for worker in list(self._workers):
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker


@dataclass(frozen=True)
class VmBoot:
    """A virtual machine at power-on.

    `uuid` is the SMBIOS uuid, `mac` that of net0 (upper case), `disks` are (id, GiB) pairs in bus order,
    `image` is the file in the ISO drive ("" for none), `address` is CIDR from the cloud-init drive ("" for DHCP).
    `cpu_features` are named as in /proc/cpuinfo.
    """

    vmid: int
    name: str
    host: str
    uuid: str
    mac: str
    cores: int
    memory_mib: int
    disks: tuple[tuple[str, int], ...]
    image: str
    address: str
    gateway: str
    hostname: str
    agent: bool
    cpu_features: frozenset[str] = Host.cpu_features


class Machines(Protocol):
    """Boots and stops the guests of virtual machines; all calls return at once."""

    def power_on(self, vm: VmBoot) -> None:
        """Boot a guest."""

    def power_off(self, uuid: str) -> None:
        """Stop a guest at once, without a shutdown."""

    def forget(self, uuid: str) -> None:
        """Delete the content of a destroyed VM's disks."""


@dataclass(frozen=True)
class Durations:
    """Simulated seconds for each kind of work."""

    download: float = 25.0
    create: float = 6.0
    start: float = 3.0
    stop: float = 1.0
    shutdown: float = 5.0
    resize: float = 1.0
    reload: float = 3.0
    """A node reloads its network."""
    destroy: float = 2.0
    allocate: float = 0.1
    """For each disk, under the storage's lock, within `create`."""
    flock: float = 10.0
    """How long a worker waits for the lock on a configuration file."""
    backup: float = 20.0
    stale: float = 10.0
    """The interval at which pvestatd refreshes /cluster/resources."""


@dataclass(frozen=True)
class Backend:
    """Everything that the handlers of one endpoint share."""

    inventory: Inventory
    tasks: Tasks
    clock: Clock
    faults: Faults
    machines: Machines
    images: Callable[[str], int | None]
    random: Random
    durations: Durations
    tunnels: Callable[[str, Mapping[str, Tunnel]], None]
    handshakes: Callable[[str, str], Mapping[str, int] | None]


@dataclass(frozen=True)
class Call:
    """One request: the token, the variables of the path, the parameters."""

    backend: Backend
    token: Token
    path: dict[str, str]
    params: dict[str, str]

    @property
    def node(self) -> str:
        """The node in the path."""
        return self.path["node"]

    @property
    def vmid(self) -> int:
        """The VM's id in the path."""
        return int(self.path["vmid"])
