"""What Talos' API says, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NO_CHANGES = "No changes."


@dataclass(frozen=True)
class Applied:
    """How a configuration was (or, on a dry run, would be) applied: "NO_REBOOT", "REBOOT"…, in Talos' own words.

    `details` of a dry run hold the difference, secrets included: never show them as they are.
    """

    mode: str
    details: str = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def unchanged(self) -> bool:
        """Whether a dry run found that the node has this configuration already."""
        return self.details.rstrip().endswith(NO_CHANGES)


@dataclass(frozen=True)
class Version:
    """A node's Talos version ("v1.13.9"), architecture, platform ("nocloud") and mode ("cloud")."""

    tag: str
    arch: str
    platform: str
    mode: str


@dataclass(frozen=True)
class Service:
    """A system service: its state ("Running") and health (None while it is unknown)."""

    id: str
    state: str
    healthy: bool | None
    message: str


@dataclass(frozen=True)
class EtcdMember:
    """A member of etcd; `id` is in hexadecimal, as etcd's own tools write it."""

    id: str
    hostname: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True)
class MachineStage:
    """How far a node has come ("maintenance", "booting", "running"…), and what keeps it from being ready."""

    stage: str
    ready: bool
    unmet: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Snapshot:
    """An etcd snapshot that was written: where, its size in bytes and its SHA-256."""

    path: Path
    size: int
    sha256: str
