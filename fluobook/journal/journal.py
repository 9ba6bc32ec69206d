"""The journal of a run, one JSON line per event, and the summary that is computed from it.

The journal is evidence, never memory: no stage reads an old journal. Every line passes the redactor.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.redact import Redactor


def now() -> str:
    """The current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends events to `events.jsonl`; each line is flushed and synced before `write` returns.

    Args:
        path: the file, or None to keep events in memory only (a notebook outside a run).
        redactor: masks secrets in every line.
        clock: returns the time stamp of a line.
    """

    def __init__(self, path: Path | None, redactor: Redactor, *, clock: Callable[[], str] = now) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._redactor = redactor
        self._clock = clock
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None

    def write(self, event: str, **fields: Any) -> None:
        """Add one event; `fields` are plain JSON values, others are written as text.

        A line is written in one call: several processes write to the file, and each may be killed at any moment.
        """
        line = {"at": self._clock(), "event": event, **self._redactor.data(fields)}
        text = json.dumps(line, ensure_ascii=False, default=lambda value: self._redactor.text(str(value)))
        with self._lock:
            self.events.append(line)
            if self._file is not None:
                os.write(self._file, f"{text}\n".encode())
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a line that a crash truncated is skipped."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run.

    `status` is done, failed, refused, interrupted or not run; `actions` counts those that were done; `checks` of
    `total` checks passed; `seconds` is wall time.
    """

    stage: str
    notebook: str
    status: str = "not run"
    actions: int = 0
    checks: int = 0
    total: int = 0
    seconds: float = 0.0
    error: str = ""
    exit_code: int = 0

    def line(self) -> str:
        """One line for the terminal."""
        mark = {"done": "✓", "failed": "✗", "refused": "■", "interrupted": "✗"}.get(self.status, "·")
        actions = f"{self.actions} action{'s' * (self.actions != 1)}"
        return f"{mark} {self.stage:<22} {actions:>11}  {self.checks:>2}/{self.total:<2} checks  {self.seconds:6.1f} s"


def summarise(stage: str, notebook: str, events: Sequence[dict[str, Any]], **rest: Any) -> StageSummary:
    """The summary of one stage, from the events of its run."""
    own = [event for event in events if event.get("stage") == stage]
    actions = sum(event["event"] == "outcome" and event["result"] == "done" for event in own)
    verified = [event["checks"] for event in own if event["event"] == "verified"]
    total = verified[-1] if verified else []
    return StageSummary(
        stage, notebook, actions=actions, checks=sum(c["passed"] for c in total), total=len(total), **rest
    )
