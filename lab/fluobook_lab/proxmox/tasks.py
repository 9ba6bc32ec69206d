"""Tasks: what takes time runs in a worker on the world clock, and is known by its UPID from the first moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.errors import PveError, TaskError, wrong

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fluobook_lab.clock import Clock


@dataclass
class Task:
    """A worker; `exit` is "" while it runs. `began` and `ended` are world seconds."""

    upid: str
    node: str
    type: str
    id: str
    user: str
    pid: int
    start: int
    began: float
    log: list[str] = field(default_factory=list)
    exit: str = ""
    ended: float = 0.0

    def status(self) -> dict[str, object]:
        """GET …/status."""
        shown = {
            "upid": self.upid,
            "node": self.node,
            "type": self.type,
            "id": self.id,
            "user": self.user.partition("!")[0],
            "tokenid": self.user.partition("!")[2],
            "pid": self.pid,
            "pstart": self.pid,
            "starttime": self.start,
            "status": "stopped" if self.exit else "running",
        }
        return shown | ({"exitstatus": self.exit} if self.exit else {})

    def listed(self, now: float) -> dict[str, object]:
        """Its item in GET /cluster/tasks."""
        shown: dict[str, object] = {
            "upid": self.upid,
            "node": self.node,
            "type": self.type,
            "id": self.id,
            "user": self.user,
            "pid": self.pid,
            "pstart": self.pid,
            "starttime": self.start,
        }
        if self.exit:
            shown |= {"endtime": self.start + int(self.ended - self.began), "status": self.exit, "saved": "1"}
        return shown | {"uptime": int(now - self.began)} if not self.exit else shown


class Tasks:
    """All tasks of one endpoint, oldest first.

    Args:
        clock: the world clock.
        epoch: the second since 1970 at which the world began.
    """

    def __init__(self, clock: Clock, epoch: float | None = None) -> None:
        self._clock = clock
        self._epoch = time.time() if epoch is None else epoch
        self._pid = 4096
        self._workers: set[asyncio.Task[None]] = set()
        self.all: dict[str, Task] = {}

    def fork(self, node: str, type_: str, id_: str, user: str, work: Callable[[Task], Awaitable[None]]) -> str:
        """Start a worker and give its UPID; an error of the work becomes the task's exit status."""
        self._pid += 1
        start = int(self._epoch + self._clock.now())
        upid = f"UPID:{node}:{self._pid:08X}:{self._pid:08X}:{start:08X}:{type_}:{id_}:{user}:"
        task = Task(upid, node, type_, id_, user, pid=self._pid, start=start, began=self._clock.now())
        self.all[upid] = task
        self.later(self._run(task, work))
        return upid

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background that is no task of Proxmox VE."""
        worker = asyncio.create_task(work)
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _run(self, task: Task, work: Callable[[Task], Awaitable[None]]) -> None:
        try:
            await work(task)
        except (TaskError, PveError) as error:
            task.log.append(f"TASK ERROR: {error}")
            task.exit = str(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies must not leave a task that never ends
            task.log.append(f"TASK ERROR: {error!r}")
            task.exit = f"worker died: {error!r}"
        else:
            task.log.append("TASK OK")
            task.exit = "OK"
        finally:
            task.ended = self._clock.now()

    def find(self, upid: str) -> Task:
        """The task of a UPID.

        Raises:
            PveError: 400, there is none.
        """
        if upid not in self.all:
            raise wrong(upid="no such task" if upid.startswith("UPID:") else "unable to parse worker upid")
        return self.all[upid]

    async def stop(self) -> None:
        """Kill the workers."""
        for worker in list(self._workers):
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
