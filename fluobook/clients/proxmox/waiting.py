"""Waiting for tasks and locks: with a deadline that has a name, patient while a host does not answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.clients.proxmox.failures import may_help_to_repeat, task_failure
from fluobook.errors import DeadlineExceeded, OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.clients.proxmox.reader import ProxmoxReader
    from fluobook.clients.proxmox.tasks import TaskStatus, Upid

UNKNOWN_FOR = 5.0
"""Seconds for which Proxmox VE may not know a task that it has just begun."""


@dataclass(frozen=True)
class Wait:
    """A named wait of at most `deadline` seconds; `poll` gives the pause after so many seconds of waiting."""

    name: str
    deadline: float
    poll: Callable[[float], float]
    begun: float = field(default_factory=time.monotonic)

    @property
    def waited(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.begun

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.waited >= self.deadline

    def pause(self) -> None:
        """Sleep until the next look, or the deadline."""
        time.sleep(max(0.0, min(self.poll(self.waited), self.deadline - self.waited)))

    @property
    def words(self) -> str:
        """`after 300 s, the deadline vm_create`."""
        return f"after {self.deadline:g} s" + (f", the deadline {self.name}" if self.name else "")


def until_ended(client: ProxmoxReader, upid: Upid, wait: Wait, on_poll: Callable[[TaskStatus], None]) -> TaskStatus:
    """Wait for the end of a task; see `ProxmoxClient.wait`."""
    while not wait.over:
        wait.pause()
        status = _look(client, upid, wait)
        if status is None:
            continue
        on_poll(status)
        if status.ok or _reached_before(status):
            return status
        if not status.running:
            raise task_failure(upid, status.exit, _log_if_any(client, upid))
    raise DeadlineExceeded(
        f"task {upid.type} {upid.id} on {upid.node} has not ended {wait.words}",
        cause="the host or the storage is slow, or the task hangs; it goes on without us",
        remedy=f"pvenode task log {upid} on {upid.node}; run the stage again, it waits for the same task"
        + (f"; or raise deadlines.{wait.name} in the params" if wait.name else ""),
    )


def until_unlocked(client: ProxmoxReader, vm: tuple[str, int], wait: Wait, on_poll: Callable[[str], None]) -> None:
    """Wait until nothing locks a machine (node, id); see `ProxmoxClient.wait_unlocked`."""
    node, vmid = vm
    while lock := str(client.vm_status(node, vmid).get("lock") or ""):
        on_poll(lock)
        if wait.over:
            raise DeadlineExceeded(
                f"VM {vmid} on {node} is still locked ({lock}) {wait.words}",
                cause=f"a {lock} of it is running, or was broken off and left its lock behind",
                remedy=f"look for its task in the Proxmox VE task list; only if none runs: qm unlock {vmid} on {node}",
            )
        wait.pause()


def _look(client: ProxmoxReader, upid: Upid, wait: Wait) -> TaskStatus | None:
    """A task's status; None where the answer says nothing about the task."""
    try:
        return client.task_status(upid)
    except OutsideError as error:
        unknown_yet = error.code == "400" and wait.waited < UNKNOWN_FOR
        if not (unknown_yet or may_help_to_repeat(error)):
            raise
    return None


def _reached_before(status: TaskStatus) -> bool:
    """A start that finds the machine running: names and states in the resources list may be 10 s old."""
    return status.upid.type == "qmstart" and status.exit.endswith("already running")


def _log_if_any(client: ProxmoxReader, upid: Upid) -> tuple[str, ...]:
    try:
        return client.task_log(upid)
    except OutsideError as error:
        return (f"(the log could not be read: {error.message})",)
