"""What earlier runs teach: the actions of a journal, and how long each is expected to take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.journal.history import MOST_RUNS, expected_seconds, performed

if TYPE_CHECKING:
    from pathlib import Path

STARTED = {"at": "2026-11-28T10:00:00.000+00:00", "event": "run-started", "phase": "phase1", "target": "lab"}


def intent(action: str, second: float, **fields: Any) -> dict[str, Any]:
    return written("intent", action, second, verb=action.split(maxsplit=1)[0], object=f"vm {action}", **fields)


def outcome(action: str, second: float, result: str = "done") -> dict[str, Any]:
    return written("outcome", action, second, result=result)


def written(event: str, action: str, second: float, **fields: Any) -> dict[str, Any]:
    at = f"2026-11-28T10:00:{second:06.3f}+00:00"
    return {"at": at, "event": event, "stage": "create-vms", "action": action, **fields}


def runs(parent: Path, *journals: list[dict[str, Any]]) -> list[Path]:
    """Run folders with these journals, in this order."""
    folders = [parent / f"{number}" for number in range(len(journals))]
    for folder, events in zip(folders, journals, strict=True):
        folder.mkdir()
        (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    return folders


def test_an_action_is_its_intent_with_its_outcome_and_each_attempt_counts() -> None:
    events = [intent("start a", 1), outcome("start a", 3.5, "failed"), intent("start a", 4, needs=["create a"])]
    events += [intent("start b", 5), outcome("start a", 6), outcome("never begun", 7)]
    assert [(a.action, a.result, a.seconds, a.needs) for a in performed(events)] == [
        ("start a", "failed", 2.5, ()),
        ("start a", "done", 2.0, ("create a",)),
        ("start b", "", 0.0, ()),
    ]


@pytest.mark.parametrize("at", [None, 5, "", "yesterday", "2026-11-28T10:00:99+00:00"])
def test_an_event_without_a_time_is_no_action(at: Any) -> None:
    assert performed([{**intent("start a", 1), "at": at}]) == []


def test_the_expected_time_is_the_median_of_earlier_runs_of_the_same_phase_and_target(tmp_path: Path) -> None:
    def took(seconds: float, result: str = "done", **started: str) -> list[dict[str, Any]]:
        return [{**STARTED, **started}, intent("start a", 1), outcome("start a", 1 + seconds, result)]

    journals = [took(2), took(40, "failed"), took(50, target="live"), [], took(4), took(30), took(55, phase="phase2")]
    expected = expected_seconds(runs(tmp_path, *journals), "phase1", "lab")
    assert expected == {("create-vms", "start a"): 4.0, ("create-vms", "start"): 4.0}
    assert expected_seconds([tmp_path / "missing"], "phase1", "lab") == {}


def test_the_expected_time_comes_from_the_newest_runs(tmp_path: Path) -> None:
    def took(seconds: float) -> list[dict[str, Any]]:
        return [STARTED, intent("start a", 0), outcome("start a", seconds)]

    folders = runs(tmp_path, *[took(2)] * MOST_RUNS, *[took(50)] * (MOST_RUNS + 2))
    assert expected_seconds(folders, "phase1", "lab")["create-vms", "start a"] == 2.0
