"""The summary of a run is drawn from its journal."""

from __future__ import annotations

from fluobook.journal.summary import not_run, summarise

EVENTS = [
    {"event": "outcome", "stage": "create-vms", "result": "done"},
    {"event": "outcome", "stage": "create-vms", "result": "failed"},
    {"event": "outcome", "stage": "another", "result": "done"},
    {"event": "verified", "stage": "create-vms", "checks": [{"passed": False}]},
    {"event": "verified", "stage": "create-vms", "checks": [{"passed": True}, {"passed": False}]},
]


def test_actions_that_were_done_count_even_where_the_stage_failed():
    summary = summarise("create-vms", "01.ipynb", EVENTS, status="failed", seconds=1.0, exit_code=1)
    assert (summary.actions, summary.checks, summary.total) == (1, 1, 2)
    assert summary.line() == "✗ create-vms                1 action   1/2  checks     1.0 s"


def test_a_stage_whose_turn_did_not_come_says_so():
    summary = not_run("create-vms", "01.ipynb")
    assert summary.status == "not run"
    assert summary.line().startswith("· create-vms")
