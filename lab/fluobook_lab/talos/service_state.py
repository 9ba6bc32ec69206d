"""The states of system services, in the words of `talosctl services`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceState:
    """A system service; `healthy` is None while nobody knows."""

    state: str
    healthy: bool | None = None
    message: str = ""

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "Running"


def up() -> ServiceState:
    """It runs and is healthy."""
    return ServiceState("Running", healthy=True, message="Health check successful")


def starting() -> ServiceState:
    """Its container is being made."""
    return ServiceState("Starting", message="Running pre state")


def waiting(condition: str) -> ServiceState:
    """It waits for something else."""
    return ServiceState("Waiting", message=condition)


def preparing() -> ServiceState:
    """That etcd does not belong to a cluster yet."""
    return ServiceState("Preparing", message="Running pre state")
