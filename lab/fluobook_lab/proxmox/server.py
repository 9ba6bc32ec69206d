"""One Proxmox VE endpoint on a socket: routes, login, injected faults."""

from __future__ import annotations

import inspect
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook_lab.http import HttpServer
from fluobook_lab.proxmox import cluster, power, schema, sdn, storage, vms
from fluobook_lab.proxmox.model import (
    GIB,
    Backend,
    Call,
    Durations,
    Host,
    Inventory,
    Storage,
    Tasks,
    Token,
    Tunnel,
    Vm,
    Volume,
    authenticate,
)
from fluobook_lab.proxmox.options import PveError, TaskError, invalid

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.proxmox.model import Machines

    Handler = Callable[[Call], Any]

_VM = "/nodes/{node}/qemu/{vmid}"
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/version", cluster.version),
    ("GET", "/access/permissions", cluster.permissions),
    ("GET", "/access/users/{userid}/token", cluster.tokens),
    ("DELETE", "/access/users/{userid}/token/{tokenid}", cluster.remove_token),
    ("GET", "/cluster/nextid", cluster.next_id),
    ("GET", "/cluster/resources", cluster.resources),
    ("GET", "/cluster/tasks", cluster.tasks),
    *sdn.ROUTES,
    ("GET", "/nodes", cluster.nodes),
    ("GET", "/nodes/{node}/firewall/rules", cluster.firewall_rules),
    ("POST", "/nodes/{node}/firewall/rules", cluster.create_firewall_rule),
    ("DELETE", "/nodes/{node}/firewall/rules/{pos}", cluster.delete_firewall_rule),
    ("GET", "/nodes/{node}/network", cluster.network),
    ("GET", "/nodes/{node}/status", cluster.host_status),
    ("GET", "/nodes/{node}/query-url-metadata", storage.query_url),
    ("GET", "/nodes/{node}/storage", storage.index),
    ("GET", "/nodes/{node}/storage/{storage}/content", storage.content),
    ("POST", "/nodes/{node}/storage/{storage}/download-url", storage.download),
    ("GET", "/nodes/{node}/tasks", cluster.node_tasks),
    ("GET", "/nodes/{node}/tasks/{upid}/status", cluster.task_status),
    ("GET", "/nodes/{node}/tasks/{upid}/log", cluster.task_log),
    ("GET", "/nodes/{node}/qemu", cluster.vms),
    ("POST", "/nodes/{node}/qemu", vms.create),
    ("DELETE", _VM, vms.destroy),
    ("GET", f"{_VM}/config", vms.config),
    ("POST", f"{_VM}/config", vms.update_in_task),
    ("PUT", f"{_VM}/config", vms.update),
    ("GET", f"{_VM}/pending", vms.pending),
    ("PUT", f"{_VM}/resize", vms.resize),
    ("GET", f"{_VM}/status/current", power.current),
    ("POST", f"{_VM}/status/start", power.start),
    ("POST", f"{_VM}/status/stop", power.stop),
    ("POST", f"{_VM}/status/shutdown", power.shutdown),
    ("POST", f"{_VM}/status/reboot", power.reboot),
)

ROOT_ONLY = frozenset(
    {"skiplock", "keepActive", "stateuri", "migratedfrom", "migration_type", "migration_network", "targetstorage"}
)
"""Parameters that no API token may use."""
_NO_WORKER = PveError(500, "got no worker upid - start worker failed")
_REFUSED: tuple[tuple[Handler, str, PveError], ...] = (
    (vms.create, "proxmox.create-500-once", _NO_WORKER),
    (power.start, "proxmox.start-500-once", _NO_WORKER),
    (
        cluster.task_status,
        "proxmox.task-status-400-once",
        PveError(400, "Parameter verification failed.", {"upid": "no such task"}),
    ),
    (cluster.task_status, "proxmox.task-status-500-once", PveError(500, "got timeout")),
)
"""Faults that answer a request with an error before it has any effect."""
_LOST_ANSWERS: dict[Handler, str] = {vms.create: "create", power.start: "start"}
"""Requests whose answer a fault loses after they took effect."""
STUCK = "migrate"
"""The lock that the fault `proxmox.vm-locked` leaves."""
_LOCKED_BY_BACKUP: frozenset[Handler] = frozenset({power.start, vms.update, vms.resize})


class ProxmoxLab(HttpServer):
    """One Proxmox VE endpoint of the lab: a single host or a cluster.

    Args:
        hosts: the nodes.
        storages: every node has all of them.
        tokens: the API tokens that are accepted, with their privileges.
        clock: the lab's clock.
        faults: the faults to inject.
        machines: boots the guests of virtual machines.
        images: returns the size in bytes of the file at a URL, None if the URL does not exist.
        random: for generated uuids and MAC addresses.
        version: of Proxmox VE.
        durations: how long work takes.
        planned: (vmid, name, host) of the VMs that will be created; faults place foreign VMs in their way.
        pools: the resource pools that exist.
        cpu_models: the models of CPUs that an administrator defined.
        tunnels: takes the WireGuard interfaces that a node's network has after a reload, by name.
        handshakes: returns the time of the last handshake (0 for none) of a node's interface with each public key, None
            if the interface is down.
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
        random: Random | None = None,
        version: str = "",
        durations: Durations | None = None,
        planned: Sequence[tuple[int, str, str]] = (),
        pools: Sequence[str] = (),
        cpu_models: Sequence[str] = (),
        tunnels: Callable[[str, Mapping[str, Tunnel]], None] = lambda _node, _tunnels: None,
        handshakes: Callable[[str, str], Mapping[str, int] | None] = lambda _node, _interface: None,
    ) -> None:
        self.inventory = Inventory(tuple(hosts), tuple(storages), tuple(tokens), version=version or _version(faults))
        self.inventory.pools.update(pools)
        self.inventory.cpu_models.update(cpu_models)
        self.tasks = Tasks(clock, fails=lambda type_: faults.answer("proxmox", f"TASK {type_}"))
        self._backend = Backend(
            inventory=self.inventory,
            tasks=self.tasks,
            clock=clock,
            faults=faults,
            machines=machines,
            images=images,
            random=random or Random(0),
            durations=durations or Durations(),
            tunnels=tunnels,
            handshakes=handshakes,
        )
        app = web.Application(client_max_size=2**20)
        for method, path, handler in ROUTES:
            app.router.add_route(method, f"/api2/json{path}", _route(self._backend, f"{method} {path}", handler))
        app.router.add_route("*", "/{tail:.*}", _unknown)
        super().__init__(app, clock)
        self._planned, self._foreign = planned, dict[str, Vm]()
        self._version = version
        self.refresh_faults()

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen, and refresh /cluster/resources at intervals."""
        await super().start(sock, ssl_context)
        self.tasks.run_in_background(self._pvestatd())

    async def stop(self) -> None:
        """Stop listening and cancel the workers."""
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
        """Add a foreign VM; a `running` one has no guest in the lab."""
        disks = disk_storage or next(each.name for each in self.inventory.storages.values() if "images" in each.content)
        volid = self.inventory.free_disk_name(host, disks, vmid)
        self.inventory.volumes(host, disks)[volid] = Volume(volid, "images", disk_gib * GIB, vmid)
        options = {"cores": "2", "memory": "4096", "scsi0": f"{volid},size={disk_gib}G", "boot": "order=scsi0"}
        options |= storage.stored_options(self._backend, {"net0": "virtio,bridge=vmbr0"})
        options |= {"smbios1": f"uuid={storage.new_uuid(self._backend)}", "name": name}
        vm = Vm(vmid, host, options | dict(config or {}), running=running)
        self.inventory.vms[vmid] = vm
        return vm

    def stop_vm(self, vmid: int) -> None:
        """Cut the power of a VM."""
        power.halt(self._backend, self.inventory.vms[vmid])

    def remove_vm(self, vmid: int) -> None:
        """Let a VM be gone with its disks, as if somebody had destroyed it."""
        vm = self.inventory.vms.pop(vmid)
        storage.delete_disks(self._backend, vm.host, vmid, config=vm.config)
        self._backend.machines.forget(vm.uuid)

    def set_lock(self, vmid: int, lock: str, *, seconds: float | None = None) -> None:
        """Lock a VM as a backup or a migration does, for simulated seconds or until `remove_lock`."""
        power.set_lock(self._backend, self.inventory.vms[vmid], lock, seconds)

    def remove_lock(self, vmid: int) -> None:
        """Unlock a VM, as `qm unlock` does."""
        self.inventory.vms[vmid].config.pop("lock", None)

    def guest_stopped(self, uuid: str) -> None:
        """Mark the VM as stopped, because its guest powered off."""
        for vm in self.inventory.vms.values():
            if vm.uuid == uuid:
                power.halt(self._backend, vm, power_off=False)

    def refresh_faults(self) -> None:
        """Bring what lasts in line with the faults: the version, somebody's pending change, a lock."""
        faults, zones = self._backend.faults, self.inventory.sdn.configured["zones"]
        self.inventory.version = self._version or _version(faults)
        if faults.on("proxmox.sdn-foreign-change"):
            zones["lab2"] = {"type": "simple"}
        else:
            zones.pop("lab2", None)
        self._place_foreign_vms()
        for vm in self.inventory.vms.values():
            if vm.config.get("lock") == STUCK and not faults.on("proxmox.vm-locked"):
                del vm.config["lock"]

    async def _pvestatd(self) -> None:
        while True:
            for vm in self.inventory.vms.values():
                vm.listed = (vm.name, vm.status)
            await self._backend.clock.sleep(self._backend.durations.stale)

    def _place_foreign_vms(self) -> None:
        if not self._planned:
            return
        vmid, name, host = self._planned[0]
        other = max(vmid for vmid, _, _ in self._planned) + 1000
        foreign = {"proxmox.foreign-vmid": (vmid, "prod-db"), "proxmox.foreign-vm-with-our-name": (other, name)}
        for fault, (number, own_name) in foreign.items():
            if self._backend.faults.on(fault) and number not in self.inventory.vms:
                self._foreign[fault] = self.add_vm(number, own_name, host, running=True)
            elif not self._backend.faults.on(fault) and fault in self._foreign:
                del self.inventory.vms[self._foreign.pop(fault).vmid]


def _version(faults: Faults) -> str:
    """The version that the faults choose, or the usual one."""
    chosen = {"proxmox.version-8": "8.4.14", "proxmox.version-9-2": "9.2.6"}
    return next((version for name, version in chosen.items() if faults.on(name)), "9.0.10")


def _route(backend: Backend, name: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response({"data": await _answer(backend, name, request, handler)})
        except PveError as error:
            return _error(error)
        except TaskError as error:
            return _error(PveError(500, str(error)))

    return handle


async def _answer(backend: Backend, name: str, request: web.Request, handler: Handler) -> Any:
    faults = backend.faults
    if faults.on("proxmox.api-slow"):
        await backend.clock.sleep(1)
    token = _token(backend, request.headers.get("Authorization", ""))
    call = Call(backend, token, dict(request.match_info), await _parameters(backend, name, request))
    for concerned, fault, error in _REFUSED:
        if concerned == handler and faults.take(fault):
            raise PveError(error.status, error.text, error.errors)
    if handler in _LOCKED_BY_BACKUP:
        _lock(backend, call)
    data = handler(call)
    data = await data if inspect.isawaitable(data) else data
    if lost := _LOST_ANSWERS.get(handler):
        if faults.take(f"proxmox.{lost}-596-once"):
            raise PveError(596, "Connection timed out")
        if faults.take(f"proxmox.{lost}-lost-once") and request.transport is not None:
            request.transport.abort()
    return data


def _lock(backend: Backend, call: Call) -> None:
    """Lock the VM of a call if a fault says so."""
    if backend.faults.on("proxmox.vm-locked"):
        power.set_lock(backend, backend.inventory.vm(call.node, call.vmid), STUCK)
    elif backend.faults.take("proxmox.lock-backup"):
        power.set_lock(backend, backend.inventory.vm(call.node, call.vmid), "backup", backend.durations.backup)


def _token(backend: Backend, header: str) -> Token:
    """The token of a request, with the rights that the faults leave it."""
    faults = backend.faults
    token = authenticate(header, {} if faults.on("proxmox.token-wrong") else backend.inventory.tokens)
    if faults.on("proxmox.token-no-rights"):
        return replace(token, grants={})
    lacking = faults.answer("proxmox", "TOKEN")
    return replace(token, grants={p: set(g) - set(lacking.body) for p, g in token.grants.items()}) if lacking else token


async def _parameters(backend: Backend, name: str, request: web.Request) -> dict[str, str]:
    """The parameters of a request in query and body; a null character joins the values of one that is repeated.

    Raises:
        PveError: 400, one of them is wrong.
    """
    given = [*request.query.items(), *(await request.post()).items()]
    params = {name: "\0".join(str(value) for key, value in given if key == name) for name, _ in given}
    conflicts = [key for key, value in params.items() if request.match_info.get(key, value) != value]
    problem = "duplicate parameter (already defined in URI) with conflicting values!"
    if not conflicts:
        schema.check(name, {**params, **request.match_info}, backend.inventory.version)
        conflicts, problem = [key for key in params if key in ROOT_ONLY], "Only root may use this option."
    if conflicts:
        raise invalid(**dict.fromkeys(conflicts, problem))
    return params


def _error(error: PveError) -> web.Response:
    body: dict[str, Any] = {"data": None, "message": f"{error.text}\n"}
    body |= {"errors": error.errors} if error.errors else {}
    return web.json_response(body, status=error.status, reason=error.text.replace("\n", " "))


async def _unknown(request: web.Request) -> web.StreamResponse:
    path = request.path.removeprefix("/api2/json")
    return _error(PveError(501, f"Method '{request.method} {path}' not implemented"))
