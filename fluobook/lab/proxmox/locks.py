"""The lock on a machine's configuration file, which every worker takes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fluobook.lab.proxmox.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook.lab.proxmox.context import World
    from fluobook.lab.proxmox.site import Vm


@asynccontextmanager
async def locked(world: World, vm: Vm) -> AsyncIterator[None]:
    """Hold a machine's configuration file; who waits too long gives up.

    Raises:
        TaskError: somebody else holds it for too long.
    """
    try:
        await asyncio.wait_for(vm.flock.acquire(), world.durations.flock / world.clock.speed)
    except TimeoutError:
        raise TaskError(f"can't lock file '/var/lock/qemu-server/lock-{vm.vmid}.conf' - got timeout") from None
    try:
        yield
    finally:
        vm.flock.release()
