"""How long actions take, from journals: medians by kind, and where a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluobook.journal.durations import StageState, comparable, state_of, time_text, usual

CREATE = ("create-vms", "create", "vm")
START = ("create-vms", "start", "vm")


def at(second: float) -> str:
    return f"2026-11-28T20:00:{second:06.3f}+00:00"


def intent(second: float, action: str, verb: str = "create", changed: str = "vm a", **fields: Any) -> dict[str, Any]:
    event = {"at": at(second), "event": "intent", "stage": "create-vms", "action": action}
    return event | {"verb": verb, "object": changed} | fields


def outcome(second: float, action: str, result: str = "done", **fields: Any) -> dict[str, Any]:
    return {"at": at(second), "event": "outcome", "stage": "create-vms", "action": action, "result": result} | fields


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], {}),
        ([intent(1, "a"), outcome(3.5, "a")], {CREATE: 2.5}),
        ([intent(1, "a"), intent(2, "b"), outcome(3, "b"), outcome(5, "a")], {CREATE: 2.5}),
        ([intent(1, "a"), intent(1, "b", "start"), outcome(2, "a"), outcome(3, "b")], {CREATE: 1, START: 2}),
        ([intent(1, "a"), outcome(9, "a", "failed")], {}),  # a failure says nothing about the usual time
        ([intent(1, "a")], {}),  # the run was killed
        ([outcome(1, "a")], {}),
        ([intent(1, "a"), outcome(9, "a", stage="reset")], {}),  # another stage's action of the same name
        ([intent(1, "a"), intent(5, "a"), outcome(6, "a")], {CREATE: 1}),  # the stage was run again
    ],
)
def test_the_usual_time_is_that_of_actions_that_were_done(events: Any, expected: Any) -> None:
    assert usual([events]) == expected


def test_what_is_usual_is_the_median_over_runs() -> None:
    runs = [[intent(0, "a"), outcome(seconds, "a")] for seconds in (1, 2, 30)]
    assert usual(runs) == {CREATE: 2}


def test_only_runs_under_the_same_conditions_are_compared(tmp_path: Path) -> None:
    conditions = [{"engine": "embedded", "speed": 60.0}, {"engine": "real", "speed": 60.0}, {"engine": "embedded"}]
    folders = []
    for number, condition in enumerate(conditions):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        event = {"event": "run-started", "target": "lab", "number": str(number), **condition}
        (folders[-1] / "events.jsonl").write_text(json.dumps(event) + "\n")
    folders.append(tmp_path / "without a journal")
    runs = comparable(folders, {"target": "lab", "engine": "embedded", "speed": 60.0})
    assert [run[0]["number"] for run in runs] == ["0"]


@pytest.mark.parametrize(
    ("elapsed", "expected", "limit", "text"),
    [
        (12.7, 40.2, 600.0, "12 s of about 40 s, limit 600 s"),
        (0.2, 0.1, None, "0 s of about 1 s"),
        (3.0, None, 300.4, "3 s, limit 300 s"),
        (3.0, None, None, "3 s"),
    ],
)
def test_the_time_of_an_action_says_what_is_known(
    elapsed: float, expected: float | None, limit: float | None, text: str
) -> None:
    assert time_text(elapsed, expected, limit) == text


BEGIN = {"event": "notebook-started", "stage": "create-vms", "at": at(0)}
PLANNED = {"event": "planned", "stage": "create-vms", "at": at(0), "actions": [{}, {}, {}]}
END = {"event": "notebook-ended", "stage": "create-vms", "at": at(9)}


@pytest.mark.parametrize(
    ("events", "stage", "done", "total", "running"),
    [
        ([BEGIN], "create-vms", 0, 0, {}),
        ([BEGIN, PLANNED, intent(1, "a")], "create-vms", 0, 3, {"a": None}),
        ([BEGIN, PLANNED, intent(1, "a"), outcome(2, "a"), intent(2, "b")], "create-vms", 1, 3, {"b": None}),
        ([BEGIN, PLANNED, intent(1, "a"), outcome(2, "a", "failed")], "create-vms", 0, 3, {}),
        (
            [BEGIN, intent(1, "a"), {"event": "wait", "action": "a", "seconds": 600.0, "at": at(3)}],
            "create-vms",
            0,
            0,
            {"a": 602.0},
        ),
    ],
)
def test_the_state_of_a_stage_follows_from_its_events(
    events: Any, stage: str, done: int, total: int, running: Any
) -> None:
    state = state_of(events)
    assert isinstance(state, StageState)
    assert (state.stage, state.done, state.total) == (stage, done, total)
    assert {name: action.limit for name, action in state.running.items()} == running


@pytest.mark.parametrize("events", [[], [BEGIN, END], [BEGIN, PLANNED, END, {"event": "run-ended"}], [PLANNED]])
def test_between_two_stages_there_is_no_state(events: Any) -> None:
    assert state_of(events) is None
