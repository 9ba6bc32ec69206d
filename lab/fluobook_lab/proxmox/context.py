"""What every call of the lab's Proxmox VE works with, and how long its work takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.proxmox.access import Token
    from fluobook_lab.proxmox.site import Site
    from fluobook_lab.proxmox.tasks import Tasks
    from fluobook_lab.vm import Machines


@dataclass(frozen=True)
class Durations:
    """World seconds that each kind of work takes."""

    download: float = 25.0
    create: float = 6.0
    start: float = 3.0
    stop: float = 1.0
    shutdown: float = 5.0
    resize: float = 1.0
    destroy: float = 2.0
    allocate: float = 0.1
    """For each disk, under the storage's lock, within `create`."""
    flock: float = 10.0
    """How long a worker waits for a machine's configuration file."""
    backup: float = 20.0
    stale: float = 10.0
    """How often pvestatd refreshes what /cluster/resources shows."""


@dataclass(frozen=True)
class World:
    """What the calls share."""

    site: Site
    tasks: Tasks
    clock: Clock
    faults: Faults
    machines: Machines
    images: Callable[[str], int | None]
    guest_agent: Callable[[str], list[dict[str, Any]] | None]
    random: Random
    durations: Durations


@dataclass(frozen=True)
class Call:
    """One request: who asks, on which path, with which parameters."""

    world: World
    token: Token
    path: dict[str, str]
    params: dict[str, str]

    @property
    def node(self) -> str:
        """The node in the path."""
        return self.path["node"]

    @property
    def vmid(self) -> int:
        """The machine's id in the path."""
        return int(self.path["vmid"])
