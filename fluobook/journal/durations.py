"""How long actions take, from the journals of earlier runs; and where a run is, from its own journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from fluobook.errors import BadFile
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


def durations(events: Sequence[Mapping[str, Any]]) -> dict[Kind, list[float]]:
    """The seconds of each action that was done, by its kind, from the events of one run."""
    begun: dict[tuple[str, str], Mapping[str, Any]] = {}
    taken: dict[Kind, list[float]] = {}
    for event in events:
        key = (str(event.get("stage")), str(event.get("action")))
        if event["event"] == "intent":
            begun[key] = event
        elif event["event"] == "outcome" and event.get("result") == "done" and key in begun:
            started = begun.pop(key)
            with suppress(KeyError, TypeError, ValueError):
                seconds = (_time(event) - _time(started)).total_seconds()
                taken.setdefault(kind_of(key[0], str(started["verb"]), str(started["object"])), []).append(seconds)
    return taken


def usual(runs: Iterable[Sequence[Mapping[str, Any]]]) -> dict[Kind, float]:
    """The median of the seconds of each kind of action over some runs."""
    taken: dict[Kind, list[float]] = {}
    for events in runs:
        for kind, seconds in durations(events).items():
            taken.setdefault(kind, []).extend(seconds)
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
    """An action that runs: when it began, its kind, and its limit in seconds after that, if it waits."""

    at: datetime
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
    state: StageState | None = None
    for event in events:
        name, action = event["event"], str(event.get("action"))
        if name == "notebook-started":
            state = StageState(str(event.get("stage")))
        elif name in ("notebook-ended", "run-ended"):
            state = None
        elif state is None:
            continue
        elif name == "planned" and isinstance(event.get("actions"), list):
            state.total = len(event["actions"])
        elif name == "intent":
            with suppress(KeyError, TypeError, ValueError):
                kind = kind_of(state.stage, str(event.get("verb")), str(event.get("object")))
                state.running[action] = Started(_time(event), kind)
        elif name == "wait" and action in state.running:
            with suppress(KeyError, TypeError, ValueError):
                begun = state.running[action].at
                state.running[action].limit = (_time(event) - begun).total_seconds() + float(event["seconds"])
        elif name == "outcome":
            state.running.pop(action, None)
            state.done += event.get("result") == "done"
    return state


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])
