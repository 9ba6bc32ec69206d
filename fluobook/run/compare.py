"""What differs between two runs: versions, plans, durations, checks and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluobook.display.table import Cell, Table
from fluobook.journal.history import listed, performed
from fluobook.journal.journal import StageSummary, beginning, read_record

_HEAD = ("phase", "target", "outcome", "exit_code", "seconds", "charts", "commit", "cluster", "fluobook", "params")
SLOWER = 1.25
"""The ratio of two durations from which on they differ, if they differ by more than a second too."""


@dataclass
class _Recorded:
    """What the comparison needs of a run, by what identifies it in both runs."""

    head: dict[str, Any]
    stages: Mapping[str, StageSummary]
    planned: dict[tuple[str, str], str] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    checks: dict[tuple[str, str], tuple[bool, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    damage: tuple[str, ...] = ()


def _recorded(folder: Path) -> _Recorded:
    record = read_record(folder)
    begun = beginning(record.events)
    head = {**begun, **vars(listed(folder.name, record))}
    head = {name: head.get(name, "") for name in _HEAD}
    head |= {f"{name} version": text for name, text in begun.get("versions", {}).items()}
    recorded = _Recorded(head, {stage.stage: stage for stage in record.summary.stages}, damage=record.damage)
    for event in record.events:
        stage = event.get("stage", "")
        if event["event"] == "planned" and stage not in recorded.digests:
            recorded.digests[stage] = str(event.get("digest", ""))
            for action in _mappings(event.get("actions")):
                recorded.planned[stage, f"{action.get('verb')} {action.get('object')}"] = str(action.get("reason", ""))
        if event["event"] == "verified":
            for check in _mappings(event.get("checks")):
                key = stage, str(check.get("check"))
                recorded.checks[key] = (bool(check.get("passed")), str(check.get("result", "")))
    recorded.seconds = {(a.stage, a.action): a.seconds for a in performed(record.events) if a.ended is not None}
    return recorded


def _mappings(values: Any) -> Iterable[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def differences(earlier: Path, later: Path) -> list[Table]:
    """Tables of what differs between two runs; a table without rows says that nothing does.

    If a record is damaged, the first table says so: what it lacks is in no other.

    Raises:
        BadFile: a folder has neither a summary nor a journal.
    """
    before, after = _recorded(earlier), _recorded(later)
    heads = [[n, before.head.get(n, ""), after.head.get(n, "")] for n in dict.fromkeys([*before.head, *after.head])]
    stages = [[n, *map(_stage, (before, after), (n, n))] for n in dict.fromkeys([*before.stages, *after.stages])]
    columns = [earlier.name, later.name]
    sides = ((earlier, before), (later, after))
    damaged = [[folder.name, problem] for folder, recorded in sides for problem in recorded.damage]
    return [
        *([_table("damaged records", ["run", "problem"], damaged)] if damaged else []),
        _table("runs", ["", *columns], (row for row in heads if row[1] != row[2])),
        _table("stages", ["stage", *columns], (row for row in stages if row[1] != row[2])),
        _table("planned actions", ["stage", "action", *columns], _changed(before.planned, after.planned, str)),
        _table("durations of actions", ["stage", "action", *columns], _slower(before.seconds, after.seconds)),
        _table("checks", ["stage", "check", *columns], _changed(before.checks, after.checks, _check)),
    ]


def _stage(recorded: _Recorded, name: str) -> str:
    stage, digest = recorded.stages.get(name), recorded.digests.get(name, "")
    plan = f", plan {digest}" if digest else ""
    return f"{stage.status}, {stage.actions} actions{plan}, {stage.seconds:.1f} s" if stage else "-"


def _check(check: tuple[bool, str]) -> Cell:
    return Cell(check[1], "ok" if check[0] else "bad")


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any], shown: Callable[[Any], Any]) -> Iterable[list[Any]]:
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            yield [*key, *(shown(side[key]) if key in side else "-" for side in (before, after))]


def _slower(before: Mapping[Any, float], after: Mapping[Any, float]) -> Iterable[list[Any]]:
    """The actions of both runs whose durations differ, the largest difference first."""
    for key in sorted(before.keys() & after.keys(), key=lambda key: -abs(before[key] - after[key])):
        low, high = sorted((before[key], after[key]))
        if high - low > 1 and high > SLOWER * low:
            yield [*key, f"{before[key]:.1f} s", f"{after[key]:.1f} s"]


def _table(title: str, columns: list[str], rows: Iterable[list[Any]]) -> Table:
    listed = list(rows)
    return Table(title if listed else f"{title}: no differences", columns, listed, limit=len(listed))
