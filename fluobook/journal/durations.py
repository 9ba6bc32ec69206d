"""How long actions take, from the journals of earlier runs; and where a run is, from its own journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from fluobook.errors import BadFile
from fluobook.journal.history import moment, performed
from fluobook.journal.journal import read

SEARCHED = 10
"""How many of the newest runs under the same conditions are read."""
CANDIDATES = 50
"""How many of the newest run folders are searched for them."""

Kind = tuple[str, str, str]
"""A stage, a verb, and the kind of the object: actions of one kind take about the same time."""


def kind_of(stage: str, verb: str, changed: str) -> Kind:
    """The kind of an action; `changed` is its object, whose first word says what it is."""
    return stage, verb, changed.partition(" ")[0]


def usual(runs: Iterable[Sequence[Mapping[str, Any]]]) -> dict[Kind, float]:
    """The median of the seconds of each kind of action over some runs; what failed says nothing about it."""
    taken: dict[Kind, list[float]] = {}
    for action in (action for events in runs for action in performed(events)):
        if action.result == "done":
            taken.setdefault(kind_of(action.stage, action.verb, action.object), []).append(action.seconds)
    return {kind: median(seconds) for kind, seconds in taken.items()}


def comparable(folders: Sequence[Path], conditions: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The events of the newest runs under the same conditions: target, engine and time scale."""
    runs: list[list[dict[str, Any]]] = []
    for folder in folders[:CANDIDATES]:
        with suppress(BadFile):
            events = read(folder / "events.jsonl")
            if events and all(events[0].get(name) == value for name, value in conditions.items()):
                runs.append(events)
        if len(runs) == SEARCHED:
            break
    return runs


def time_text(elapsed: float, expected: float | None, limit: float | None) -> str:
    """What is known about the time of a running action, as in "12 s of about 40 s, limit 600 s"."""
    about = f" of about {_rounded(expected)}" if expected is not None else ""
    return f"{int(elapsed)} s{about}" + (f", limit {limit:.0f} s" if limit is not None else "")


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s"


@dataclass
class Started:
    """An action that runs: when it began (seconds since the epoch), its kind, and its limit in seconds if it waits."""

    at: float
    kind: Kind
    limit: float | None = None


@dataclass
class StageState:
    """Where a stage of a run is: how many of its actions are done, and which run."""

    stage: str
    total: int = 0
    done: int = 0
    running: dict[str, Started] = field(default_factory=dict)


def state_of(events: Sequence[Mapping[str, Any]]) -> StageState | None:
    """The stage that a run is in, from the events of its journal; None before the first and between two."""
    begin = max((number for number, event in enumerate(events) if event["event"] == "notebook-started"), default=None)
    if begin is None or any(event["event"] in ("notebook-ended", "run-ended") for event in events[begin:]):
        return None
    state = StageState(str(events[begin].get("stage")))
    own = events[begin:]
    for action in performed(own):
        state.done += action.result == "done"
        if action.ended is None:
            state.running[action.action] = Started(action.began, kind_of(state.stage, action.verb, action.object))
    for event in own:
        if event["event"] == "planned" and isinstance(event.get("actions"), list):
            state.total = len(event["actions"])
        started, at = state.running.get(str(event.get("action"))), moment(event)
        if event["event"] == "wait" and started and at is not None and "seconds" in event:
            started.limit = at - started.at + event["seconds"]
    return state
