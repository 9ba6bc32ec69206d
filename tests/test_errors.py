"""The error tree: exit codes, diagnostics, and the table in the module's docstring."""

from __future__ import annotations

import inspect
import re

import pytest

from fluobook import errors
from fluobook.errors import CheckFailed, FluobookError, OutsideError, ParamsError, PlanChanged, Refused, UsageError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FluobookError)]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_the_table_with_its_exit_code(kind):
    code = ""
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    (\d+) ", line):
            code = found[1]
        if re.search(rf"\b{kind.__name__}\b", line):
            assert int(code) == kind.exit_code
            return
    pytest.fail(f"{kind.__name__} is not in the table")


@pytest.mark.parametrize(("kind", "code"), [(FluobookError, 1), (PlanChanged, 3), (CheckFailed, 4), (UsageError, 64)])
def test_exit_codes_follow_the_tree(kind, code):
    assert kind.exit_code == code


def test_diagnostics_have_the_message_the_cause_and_the_remedy():
    error = Refused("it would lose data", cause="the disk shrinks", remedy="set 80 or more")
    assert error.diagnostics() == "it would lose data\n  cause:  the disk shrinks\n  remedy: set 80 or more"
    assert str(error) == "it would lose data"


def test_diagnostics_leave_out_what_is_unknown():
    assert Refused("no").diagnostics() == "no"


def test_the_systems_answer_comes_last_and_is_shortened_to_its_end():
    detail = "\n".join(f"line {number}" for number in range(100))
    told = OutsideError("failed", system="proxmox", detail=detail, remedy="look").diagnostics().splitlines()
    assert told[:3] == ["failed", "  remedy: look", "  proxmox answered:"]
    assert told[3:] == [f"    line {number}" for number in range(80, 100)]


def test_wrong_params_list_every_problem():
    error = ParamsError("two problems", problems=("a: wrong", "b: wrong"))
    assert error.diagnostics().splitlines()[1:] == ["  - a: wrong", "  - b: wrong"]
