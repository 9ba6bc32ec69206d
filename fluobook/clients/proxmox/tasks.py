"""Proxmox VE's tasks: their ids, their states, and the interval at which they are polled."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.errors import Rejected

UPID = re.compile(
    r"UPID:(?P<node>[^:\s]+):(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,9}):(?P<start>[0-9A-Fa-f]{8})"
    r":(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)
LOG_TAIL = 20
"""Lines of a failed task's log that are shown."""
SHORTEST, LONGEST = 0.1, 1.0
"""Seconds between two polls, at least and at most."""
EARLY = 0.9
"""The part of its usual duration after which a task is polled."""


@dataclass(frozen=True)
class Upid:
    """The id of a task; `node` runs it, whichever node was asked. `str()` gives Proxmox VE's text."""

    text: str
    node: str
    started: int
    type: str
    id: str
    user: str

    @classmethod
    def parse(cls, text: str) -> Upid:
        """Read `UPID:node:pid:pstart:starttime:type:id:user:`.

        Raises:
            Rejected: the text is not such an id.
        """
        match = UPID.fullmatch(str(text))
        if not match:
            raise Rejected(f"Proxmox VE answered {text!r}, which is not the id of a task", system="proxmox")
        return cls(text, match["node"], int(match["start"], 16), match["type"], match["id"], match["user"])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TaskStatus:
    """The state of a task: `exit` is "" while it runs, then OK, `WARNINGS: n` or the error's text."""

    upid: Upid
    exit: str = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.exit

    @property
    def ok(self) -> bool:
        """Whether it succeeded; warnings are no failure, nor is a start that finds the VM running."""
        started_before = self.upid.type == "qmstart" and self.exit.endswith("already running")
        return self.exit == "OK" or self.exit.startswith("WARNINGS") or started_before

    @classmethod
    def read(cls, upid: Upid, data: Mapping[str, Any]) -> TaskStatus:
        """From GET /nodes/{node}/tasks/{upid}/status."""
        ended = data.get("status") == "stopped"
        return cls(upid, str(data.get("exitstatus") or "unexpected status") if ended else "")

    @classmethod
    def listed(cls, data: Mapping[str, Any]) -> TaskStatus:
        """From an item of GET /cluster/tasks, which has an end time and `status` once it is over."""
        ended = bool(data.get("endtime"))
        return cls(Upid.parse(data["upid"]), str(data.get("status") or "unexpected status") if ended else "")


def poll_interval(waited: float, since: float = 0.0) -> float:
    """Seconds between two polls of something of unknown duration.

    Args:
        waited: seconds waited for it so far; the interval grows with it from 0.1 to 0.5.
        since: seconds since the first wait of all; a fiftieth of them is no noticeable delay.
    """
    return min(LONGEST, max(min(0.5, SHORTEST + waited / 10), since / 50))


@dataclass
class Pace:
    """Poll intervals from the durations of earlier tasks of the same type; thread-safe."""

    begun: float = field(default_factory=time.monotonic)
    _ended: dict[str, tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, kind: str, seconds: float) -> None:
        """Record the duration of a task of that type."""
        with self._lock:
            count, total = self._ended.get(kind, (0, 0.0))
            self._ended[kind] = (count + 1, total + seconds)

    def pause(self, kind: str, waited: float) -> float:
        """Seconds until a task of that type is polled again, after `waited` seconds."""
        if kind not in self._ended:
            return poll_interval(waited, time.monotonic() - self.begun)
        count, total = self._ended[kind]
        usual = total / count
        return max(SHORTEST, EARLY * usual - waited, max(usual, waited) / 16)
