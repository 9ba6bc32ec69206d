"""Faults on the way: calls that have no effect, answers that get lost, a backup that comes in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox import cluster, creation, guests, power
from fluobook_lab.proxmox.errors import PveError
from fluobook_lab.proxmox.locks import set_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from fluobook_lab.proxmox.context import Call, World

_NO_WORKER = PveError(500, "got no worker upid - start worker failed")
_INSTEAD: dict[tuple[Callable[[Call], Any], str], PveError] = {
    (creation.create, "proxmox.create-500-once"): _NO_WORKER,
    (power.start, "proxmox.start-500-once"): _NO_WORKER,
    (cluster.task_status, "proxmox.task-status-400-once"): PveError(
        400, "Parameter verification failed.", {"upid": "no such task"}
    ),
    (cluster.task_status, "proxmox.task-status-500-once"): PveError(500, "got timeout"),
}
_LOSABLE: dict[Callable[[Call], Any], str] = {creation.create: "create", power.start: "start"}
_LOCKABLE: frozenset[Callable[[Call], Any]] = frozenset({power.start, guests.update, guests.resize})


async def slow(world: World) -> None:
    """Every answer takes its time."""
    if world.faults.on("proxmox.api-slow"):
        await world.clock.sleep(1)


def before(call: Call, answer: Callable[[Call], Any]) -> None:
    """What keeps a call from having any effect, or comes just before it.

    Raises:
        PveError: instead of the answer.
    """
    faults = call.world.faults
    for (concerned, name), error in _INSTEAD.items():
        if concerned == answer and faults.take(name):
            raise PveError(error.status, error.text, error.errors)
    if answer in _LOCKABLE and faults.on("proxmox.lock-backup"):
        vm = call.world.site.vm(call.node, call.vmid)
        faults.take("proxmox.lock-backup")
        set_lock(call.world, vm, "backup", call.world.durations.backup)


def after(world: World, answer: Callable[[Call], Any], request: web.Request) -> None:
    """What loses the answer to a call that has had its effect.

    Raises:
        PveError: instead of the answer.
    """
    if answer not in _LOSABLE:
        return
    if world.faults.take(f"proxmox.{_LOSABLE[answer]}-596-once"):
        raise PveError(596, "Connection timed out")
    if world.faults.take(f"proxmox.{_LOSABLE[answer]}-lost-once") and request.transport is not None:
        request.transport.abort()
