"""The history: the actions of a journal, and how a run ended."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.journal.history import performed, rehearsal_note, rehearsals, run_of
from fluobook.journal.journal import Rehearses, StageSummary, Summary

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


@pytest.mark.parametrize(
    ("statuses", "end", "outcome", "code"),
    [
        (["done", "done"], {"exit_code": 0}, "done", 0),
        (["done", "failed"], {"exit_code": 4}, "failed in create-vms", 4),
        (["refused"], {"exit_code": 3}, "refused in preflight", 3),
        (["done"], {"exit_code": 130}, "failed", 130),
        (["done"], None, "not ended", None),
    ],
)
def test_the_history_says_how_a_run_ended(
    tmp_path: Path, statuses: list[str], end: dict[str, int] | None, outcome: str, code: int | None
) -> None:
    stages = ["preflight", "create-vms"]
    events: list[dict[str, Any]] = [{**STARTED, "stages": stages, "commit": "abc", "charts": "stand-ins"}]
    for stage, status in zip(stages, statuses, strict=False):
        events.append({"event": "notebook-ended", "stage": stage, "status": status, "seconds": 2.25})
    (folder,) = runs(tmp_path, [*events, *([{"event": "run-ended", **end}] if end else [])])
    run = run_of(folder)
    assert (run.outcome, run.exit_code, run.seconds) == (outcome, code, 2.25 * len(statuses))
    assert (run.phase, run.target, run.charts, run.commit) == ("phase1", "lab", "stand-ins", "abc")


@pytest.mark.parametrize("content", ["", "{torn", "[]", '{"event": "run-started"}', '{"event": 5}', "\0"])
def test_a_run_whose_record_is_damaged_is_in_the_history_with_the_problem(tmp_path: Path, content: str) -> None:
    (tmp_path / "events.jsonl").write_text(content)
    run = run_of(tmp_path)
    assert run.outcome == "unknown"
    assert "events.jsonl has no line that says how the run began" in run.problem


def rehearsal(digest: str = "abc123", *, minutes: float = 12, status: str = "done", **more: Any) -> Summary:
    at = (NOON - timedelta(minutes=minutes)).isoformat()
    stage = StageSummary("upgrade-talos", "21.ipynb", status=status, seconds=41.2, error=more.pop("error", ""))  # type: ignore[arg-type]
    stands_for = Rehearses("fluodata", "upgrade-talos", digest, at, **more)
    return Summary("phase1", "lab", 0, (stage,), rehearses=stands_for)


NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOTES: dict[str, tuple[list[Summary], str]] = {
    "there is none": ([], "not rehearsed"),
    "it passed": ([rehearsal()], "rehearsed 12 minutes ago in the lab, passed, 41 s"),
    "yesterday": ([rehearsal(minutes=3000)], "rehearsed 2 days ago in the lab, passed, 41 s"),
    "it failed": (
        [rehearsal(status="failed", error="CheckFailed: a gate\n  cause:   a volume is degraded\n  remedy:  wait")],
        "rehearsed 12 minutes ago in the lab, failed, 41 s: a gate; a volume is degraded",
    ),
    "the lab was not like it": (
        [rehearsal(unlike=("live only: upgrade node b",))],
        "rehearsed 12 minutes ago in the lab, passed, 41 s; the lab was unlike: live only: upgrade node b",
    ),
    "another plan": ([rehearsal("fff000")], "not rehearsed; 12 minutes ago another plan was, fff000"),
    "a newer one of another plan": (
        [rehearsal("fff000", minutes=2), rehearsal()],
        "rehearsed 12 minutes ago in the lab, passed, 41 s",
    ),
}


@pytest.mark.parametrize("case", NOTES)
def test_a_person_who_approves_knows_whether_this_plan_was_rehearsed(case: str) -> None:
    found, expected = NOTES[case]
    assert rehearsal_note(found, "abc123", NOON) == expected


def test_only_rehearsals_of_this_stage_and_cluster_count(tmp_path: Path) -> None:
    folders = []
    for number, changes in enumerate(({}, {"cluster": "other"}, {"stage": "nodes"})):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        summary = asdict(rehearsal())
        summary["rehearses"] |= changes
        (folders[-1] / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "summary.json").write_text("{")
    assert rehearsals([tmp_path / "damaged", *folders], "fluodata", "upgrade-talos") == [rehearsal()]
