"""The journal: one JSON line per event, on disk before the next action starts.

It is evidence, never memory: no stage reads an old journal. Every line passes the redactor.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fluobook.redact import Redactor


def now() -> str:
    """This moment in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends events to `events.jsonl`; each line is flushed and synced before `write` returns.

    Args:
        path: the file, or None to keep events in memory only (a notebook that only looks).
        redactor: masks secrets in every line.
        clock: gives the time stamp of a line.
    """

    def __init__(self, path: Path | None, redactor: Redactor, *, clock: Callable[[], str] = now) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._redactor = redactor
        self._clock = clock
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None

    def write(self, event: str, **fields: Any) -> None:
        """Add one event; `fields` are plain JSON values, others are told as text.

        A line goes to the file in one piece: several processes write to it, and each may be killed at any moment.
        """
        line = {"at": self._clock(), "event": event, **_plain(self._redactor.data(fields))}
        text = json.dumps(line, ensure_ascii=False, default=lambda value: self._redactor.text(str(value)))
        with self._lock:
            self.events.append(line)
            if self._file is not None:
                os.write(self._file, f"{text}\n".encode())
                os.fsync(self._file)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _plain(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a line cut short by a crash is left out."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events
