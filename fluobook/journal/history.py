"""What journals say of the actions of a run, and how long the same actions took in earlier runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fluobook.errors import BadFile
from fluobook.journal.journal import read

MOST_RUNS = 20
"""How many of the newest runs of a phase and target the expected durations come from."""


@dataclass(frozen=True)
class Performed:
    """An action as a run performed it.

    `began` and `ended` are seconds since the epoch; `ended` is None if the journal has no outcome. `needs` are ids of
    actions of the same stage. `result` is done, failed, or empty without an outcome.
    """

    stage: str
    action: str
    verb: str
    object: str
    began: float
    ended: float | None = None
    result: str = ""
    error: str = ""
    needs: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took; 0 without an outcome."""
        return max(self.ended - self.began, 0.0) if self.ended is not None else 0.0


def moment(event: Mapping[str, Any]) -> float | None:
    """When an event was written, in seconds since the epoch; None if the journal does not say."""
    try:
        return datetime.fromisoformat(event["at"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def performed(events: Iterable[Mapping[str, Any]]) -> list[Performed]:
    """The actions of a journal, in the order in which they began; one that was performed twice is there twice."""
    actions: list[Performed] = []
    running: dict[tuple[str, str], int] = {}
    for event in events:
        key, at = (str(event.get("stage", "")), str(event.get("action", ""))), moment(event)
        if at is None or event["event"] not in ("intent", "outcome"):
            continue
        if event["event"] == "intent":
            running[key] = len(actions)
            needs = tuple(event.get("needs", ()))
            actions.append(Performed(*key, event.get("verb", ""), event.get("object", ""), at, needs=needs))
        elif key in running:
            begun = actions[running[key]]
            result, error = event.get("result", ""), event.get("error", "")
            fields = {"ended": at, "result": result, "error": error}
            actions[running.pop(key)] = Performed(**{**vars(begun), **fields})
    return actions


def expected_seconds(folders: Sequence[Path], phase: str, target: str) -> dict[tuple[str, str], float]:
    """How long actions took in earlier runs of a phase on a target: the median of those that were done.

    Args:
        folders: run folders, the newest first.
        phase: name of the phase.
        target: lab or live.

    Returns:
        Seconds by stage and id of the action, and by stage and verb for actions that no earlier run performed.
    """
    taken: dict[tuple[str, str], list[float]] = {}
    runs = 0
    for folder in folders:
        with suppress(BadFile):
            events = read(folder / "events.jsonl")
            if runs == MOST_RUNS or not events or (events[0].get("phase"), events[0].get("target")) != (phase, target):
                continue
            runs += 1
            for action in performed(events):
                if action.result == "done":
                    for name in {action.action, action.verb}:
                        taken.setdefault((action.stage, name), []).append(action.seconds)
    return {key: statistics.median(seconds) for key, seconds in taken.items()}
