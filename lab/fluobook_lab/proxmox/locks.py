"""The two locks of a machine: the one on its file, which every worker takes, and the one that stands in it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fluobook_lab.proxmox.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook_lab.proxmox.context import World
    from fluobook_lab.proxmox.site import Vm

_LEAST = 1.0
"""Real seconds that a worker waits at least, so that a fast clock on a busy machine makes no timeouts of its own."""


@asynccontextmanager
async def locked(world: World, vm: Vm) -> AsyncIterator[None]:
    """Hold a machine's configuration file; who waits too long gives up.

    Raises:
        TaskError: somebody else holds it for too long.
    """
    try:
        patience = max(_LEAST, world.durations.flock / world.clock.speed)
        await asyncio.wait_for(vm.flock.acquire(), patience)
    except TimeoutError:
        raise TaskError(f"can't lock file '/var/lock/qemu-server/lock-{vm.vmid}.conf' - got timeout") from None
    try:
        yield
    finally:
        vm.flock.release()


def set_lock(world: World, vm: Vm, lock: str, seconds: float | None = None) -> None:
    """Lock a machine as a backup or a migration does, for so many world seconds or until it is removed."""
    vm.config["lock"] = lock

    async def remove() -> None:
        await world.clock.sleep(seconds or 0)
        vm.config.pop("lock", None)

    if seconds is not None:
        world.tasks.later(remove())
