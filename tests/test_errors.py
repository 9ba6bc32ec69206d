"""The error tree: exit codes, and the table in the module's docstring."""

from __future__ import annotations

import inspect
import re

import pytest

from fluobook import errors
from fluobook.errors import CheckFailed, FluobookError, PlanChanged, UsageError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FluobookError)]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_the_table_with_its_exit_code(kind):
    code = ""
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    (\d+) ", line):
            code = match[1]
        if re.search(rf"\b{kind.__name__}\b", line):
            assert int(code) == kind.exit_code
            return
    pytest.fail(f"{kind.__name__} is not in the table")


@pytest.mark.parametrize(("kind", "code"), [(FluobookError, 1), (PlanChanged, 3), (CheckFailed, 4), (UsageError, 64)])
def test_exit_codes_follow_the_tree(kind, code):
    assert kind.exit_code == code
