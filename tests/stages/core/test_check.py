"""Checks: each with its result; one that failed stops the run."""

from __future__ import annotations

import pytest

from fluobook.errors import PHASE, CheckFailed, TaskFailed
from fluobook.failures import present
from fluobook.stages.core.check import Check, Checks

GOOD = Check("every VM runs", passed=True, result="3 of 3")
BAD = Check("every node answers", passed=False, result="2 of 3; not: a", remedy="open a's console")


def test_checks_that_passed_let_the_run_go_on():
    Checks("create-vms", (GOOD,)).require()


def test_a_failed_check_is_named_with_its_result_and_remedy():
    with pytest.raises(CheckFailed, match="every node answers: 2 of 3; not: a") as caught:
        Checks("create-vms", (GOOD, BAD)).require()
    assert caught.value.remedy == "open a's console"
    assert caught.value.exit_code == 4


def test_a_failed_check_without_a_remedy_has_that_of_its_known_failure_and_its_error_as_the_cause():
    error = TaskFailed("the task failed", system="proxmox", detail="no quorum")
    check = Check("hosts", passed=False, result="no answer", error=error)
    with pytest.raises(CheckFailed) as caught:
        Checks("preflight", (check,)).require()
    assert caught.value.remedy == present(error, phase=PHASE).advice
    assert caught.value.__cause__ is error


def test_the_table_marks_each_with_a_glyph():
    text = str(Checks("create-vms", (GOOD, BAD)))
    assert "✓" in text
    assert "✗" in text
    assert text.endswith("1 of 2 checks passed")


def test_an_advisory_check_that_fails_is_shown_and_stops_nothing():
    checks = Checks("stage", [Check("a", passed=True), Check("b", passed=False, result="waits", advisory=True)])
    checks.require()
    assert checks.ok
    assert checks.table().note == "1 of 2 checks passed"
