"""Proxmox VE's REST API on a socket: routes, login, parameters, answers in its own shape, and faults on the wire."""

from __future__ import annotations

import asyncio
import inspect
from random import Random
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook.lab.http import HttpServer
from fluobook.lab.proxmox import cluster, guests, power, storage
from fluobook.lab.proxmox.access import Token, authenticate
from fluobook.lab.proxmox.context import Call, Durations, World
from fluobook.lab.proxmox.errors import PveError, TaskError
from fluobook.lab.proxmox.site import GIB, Host, Site, Storage, Vm, Volume
from fluobook.lab.proxmox.tasks import Tasks

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fluobook.lab.clock import Clock
    from fluobook.lab.faults import Faults
    from fluobook.lab.vm import Machines

_VM = "/nodes/{node}/qemu/{vmid}"
ROUTES: tuple[tuple[str, str, Callable[[Call], Any]], ...] = (
    ("GET", "/version", cluster.version),
    ("GET", "/access/permissions", cluster.permissions),
    ("GET", "/cluster/nextid", cluster.next_id),
    ("GET", "/cluster/resources", cluster.resources),
    ("GET", "/cluster/tasks", cluster.tasks),
    ("GET", "/nodes", cluster.nodes),
    ("GET", "/nodes/{node}/network", cluster.network),
    ("GET", "/nodes/{node}/query-url-metadata", storage.query_url),
    ("GET", "/nodes/{node}/storage", storage.index),
    ("GET", "/nodes/{node}/storage/{storage}/status", storage.status),
    ("GET", "/nodes/{node}/storage/{storage}/content", storage.content),
    ("POST", "/nodes/{node}/storage/{storage}/download-url", storage.download),
    ("GET", "/nodes/{node}/tasks/{upid}/status", cluster.task_status),
    ("GET", "/nodes/{node}/tasks/{upid}/log", cluster.task_log),
    ("GET", "/nodes/{node}/qemu", cluster.machines),
    ("POST", "/nodes/{node}/qemu", guests.create),
    ("DELETE", _VM, guests.destroy),
    ("GET", f"{_VM}/config", guests.config),
    ("PUT", f"{_VM}/config", guests.update),
    ("POST", f"{_VM}/config", guests.update_async),
    ("GET", f"{_VM}/pending", guests.pending),
    ("PUT", f"{_VM}/resize", guests.resize),
    ("GET", f"{_VM}/status/current", power.current),
    ("POST", f"{_VM}/status/start", power.start),
    ("POST", f"{_VM}/status/stop", power.stop),
    ("POST", f"{_VM}/status/shutdown", power.shutdown),
    ("POST", f"{_VM}/status/reboot", power.reboot),
    ("POST", f"{_VM}/status/reset", power.reset),
    ("POST", f"{_VM}/agent/ping", power.agent),
    ("GET", f"{_VM}/agent/network-get-interfaces", power.agent),
)
_LOSABLE: dict[Callable[[Call], Any], str] = {guests.create: "create", power.start: "start"}


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
        self._background: set[asyncio.Task[None]] = set()
        app = web.Application(client_max_size=2**20)
        for method, path, answer in ROUTES:
            app.router.add_route(method, f"/api2/json{path}", self._handler(answer))
        app.router.add_route("*", "/{tail:.*}", self._unknown)
        super().__init__(app, clock)
        self._foreign(planned)

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen, and begin to refresh what /cluster/resources shows."""
        await super().start(sock, ssl_context)
        self._later(self._pvestatd())

    async def stop(self) -> None:
        """Stop listening; workers die with the host."""
        await super().stop()
        for task in list(self._background):
            task.cancel()
        await self.tasks.stop()

    # what a test or a world arranges

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
        options |= {"net0": guests.settle(self._world, {"net0": "virtio,bridge=vmbr0"})["net0"]}
        options |= {"smbios1": f"uuid={guests.new_uuid(self._world)}", "name": name}
        vm = Vm(vmid, host, options | dict(config or {}), running=running)
        self.site.vms[vmid] = vm
        return vm

    def set_lock(self, vmid: int, lock: str, *, seconds: float | None = None) -> None:
        """Lock a machine as a backup or a migration does, for so many world seconds or until it is removed."""
        vm = self.site.vms[vmid]
        vm.config["lock"] = lock
        if seconds is not None:
            self._later(self._unlock(vm, seconds))

    def remove_lock(self, vmid: int) -> None:
        """What `qm unlock` does."""
        self.site.vms[vmid].config.pop("lock", None)

    def guest_stopped(self, uuid: str) -> None:
        """The guest has switched itself off."""
        for vm in self.site.vms.values():
            if vm.uuid == uuid:
                power.halt(self._world, vm, pull_plug=False)

    # how it answers

    def _handler(self, answer: Callable[[Call], Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return _data(await self._answer(request, answer))
            except PveError as error:
                return _refusal(error)
            except TaskError as error:
                return _refusal(PveError(500, str(error)))

        return handle

    async def _answer(self, request: web.Request, answer: Callable[[Call], Any]) -> Any:
        faults = self._world.faults
        if faults.on("proxmox.api-slow"):
            await self._world.clock.sleep(1)
        token = authenticate(request.headers.get("Authorization", ""), self._known_tokens())
        if faults.on("proxmox.token-no-rights"):
            token = Token(token.id, token.secret, grants={})
        params = {str(key): str(value) for key, value in {**request.query, **await request.post()}.items()}
        call = Call(self._world, token, dict(request.match_info), params)
        self._before(answer, call)
        data = answer(call)
        data = await data if inspect.isawaitable(data) else data
        self._after(answer, request)
        return data

    def _known_tokens(self) -> dict[str, Token]:
        return {} if self._world.faults.on("proxmox.token-wrong") else self.site.tokens

    def _before(self, answer: Callable[[Call], Any], call: Call) -> None:
        """The faults that keep a call from having any effect, and the backup that comes in between."""
        faults = self._world.faults
        if answer is guests.create and faults.take("proxmox.create-500-once"):
            raise PveError(500, "got no worker upid - start worker failed")
        if answer is power.start and faults.take("proxmox.start-500-once"):
            raise PveError(500, "got no worker upid - start worker failed")
        if answer is cluster.task_status and faults.take("proxmox.task-status-400-once"):
            raise PveError(400, "Parameter verification failed.", {"upid": "no such task"})
        if answer is cluster.task_status and faults.take("proxmox.task-status-500-once"):
            raise PveError(500, "got timeout")
        if answer in {power.start, guests.update} and faults.take("proxmox.lock-backup"):
            self.site.vm(call.node, call.vmid)
            self.set_lock(call.vmid, "backup", seconds=self.durations.backup)

    def _after(self, answer: Callable[[Call], Any], request: web.Request) -> None:
        """The faults that lose the answer to a call that has had its effect."""
        faults = self._world.faults
        if answer not in _LOSABLE:
            return
        if faults.take(f"proxmox.{_LOSABLE[answer]}-596-once"):
            raise PveError(596, "Connection timed out")
        if faults.take(f"proxmox.{_LOSABLE[answer]}-lost-once") and request.transport is not None:
            request.transport.abort()

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/api2/json")
        return _refusal(PveError(501, f"Method '{request.method} {path}' not implemented"))

    # what happens by itself

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _pvestatd(self) -> None:
        while True:
            for vm in self.site.vms.values():
                vm.listed = (vm.name, "running" if vm.running else "stopped")
            await self._world.clock.sleep(self.durations.stale)

    async def _unlock(self, vm: Vm, seconds: float) -> None:
        await self._world.clock.sleep(seconds)
        vm.config.pop("lock", None)

    def _foreign(self, planned: Sequence[tuple[int, str, str]]) -> None:
        """Somebody else's machines where ours are going to be."""
        if not planned:
            return
        vmid, name, host = planned[0]
        if self._world.faults.on("proxmox.foreign-vmid"):
            self.add_vm(vmid, "prod-db", host, running=True)
        if self._world.faults.on("proxmox.foreign-vm-with-our-name"):
            self.add_vm(max(vmid for vmid, _, _ in planned) + 1000, name, host, running=True)


def _data(data: Any) -> web.Response:
    return web.json_response({"data": data})


def _refusal(error: PveError) -> web.Response:
    body: dict[str, Any] = {"data": None, "message": f"{error.text}\n"}
    body |= {"errors": error.errors} if error.errors else {}
    return web.json_response(body, status=error.status, reason=error.text.replace("\n", " "))
