"""Proxmox VE's REST API: its routes, login, parameters, and answers in its own shape."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook_lab.proxmox import cluster, creation, guests, interference, power, storage
from fluobook_lab.proxmox.access import Token, authenticate
from fluobook_lab.proxmox.context import Call, World
from fluobook_lab.proxmox.errors import PveError, TaskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
    ("POST", "/nodes/{node}/qemu", creation.create),
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


def application(world: World) -> web.Application:
    """The API as an aiohttp application."""
    app = web.Application(client_max_size=2**20)
    for method, path, answer in ROUTES:
        app.router.add_route(method, f"/api2/json{path}", _handler(world, answer))
    app.router.add_route("*", "/{tail:.*}", _unknown)
    return app


def _handler(world: World, answer: Callable[[Call], Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response({"data": await _answer(world, request, answer)})
        except PveError as error:
            return _refusal(error)
        except TaskError as error:
            return _refusal(PveError(500, str(error)))

    return handle


async def _answer(world: World, request: web.Request, answer: Callable[[Call], Any]) -> Any:
    await interference.slow(world)
    token = _login(world, request.headers.get("Authorization", ""))
    params = {str(key): str(value) for key, value in {**request.query, **await request.post()}.items()}
    call = Call(world, token, dict(request.match_info), params)
    interference.before(call, answer)
    data = answer(call)
    data = await data if inspect.isawaitable(data) else data
    interference.after(world, answer, request)
    return data


def _login(world: World, header: str) -> Token:
    token = authenticate(header, {} if world.faults.on("proxmox.token-wrong") else world.site.tokens)
    return Token(token.id, token.secret, grants={}) if world.faults.on("proxmox.token-no-rights") else token


def _refusal(error: PveError) -> web.Response:
    body: dict[str, Any] = {"data": None, "message": f"{error.text}\n"}
    body |= {"errors": error.errors} if error.errors else {}
    return web.json_response(body, status=error.status, reason=error.text.replace("\n", " "))


async def _unknown(request: web.Request) -> web.StreamResponse:
    path = request.path.removeprefix("/api2/json")
    return _refusal(PveError(501, f"Method '{request.method} {path}' not implemented"))
