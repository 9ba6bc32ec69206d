"""The requests that a real API server was sent, read from its audit log."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from fluobook_lab.http import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fluobook_lab.clock import Clock

READING = {"get", "list", "watch"}
OWN = ("fluobook:lab", "system:")
"""Users of the lab itself and of the cluster's own parts; operators are others."""


def requests(logs: Iterable[Path], clock: Clock) -> list[Request]:
    """What people and their programs asked for, in the order of the world's time."""
    told = [
        _request(event, clock)
        for log in logs
        for event in _events(log)
        if event.get("stage") == "ResponseComplete" and not _user(event).startswith(OWN)
    ]
    return sorted(told, key=lambda request: request.time)


def _events(log: Path) -> Iterator[dict[str, Any]]:
    if log.exists():
        with log.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # the line that is being written


def _user(event: dict[str, Any]) -> str:
    return str((event.get("user") or {}).get("username") or "")


def _request(event: dict[str, Any], clock: Clock) -> Request:
    began = dt.datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    status = int((event.get("responseStatus") or {}).get("code") or 0)
    path, verb = event["requestURI"].partition("?")[0], event["verb"]
    dry = "dryRun=" in event["requestURI"]
    review = path.endswith("reviews")
    mutating = verb not in READING and not dry and not review
    return Request(clock.at(began), verb.upper(), path, status, mutating, str(event.get("userAgent") or ""))
