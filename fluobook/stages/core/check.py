"""Checks: verified statements about the live system, each with its result; and groups of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fluobook.context import RunContext
from fluobook.display.table import Cell, Displayed, Table
from fluobook.errors import PHASE, CheckFailed, FluobookError
from fluobook.failures import Presentation, present
from fluobook.stages.core.executor import in_parallel

NAMED = 5
"""Objects of one kind with a problem that a result names; the others are counted."""


@dataclass(frozen=True)
class Check:
    """One verified statement about the live system.

    Args:
        name: the statement, such as "every VM is running".
        passed: whether it is true.
        result: what was observed; without times, ports and random names, so that two runs report the same.
        remedy: what to do when the check failed.
        advisory: the stage is done even if the check fails: it depends on something outside the platform.
        error: the error in which the check ended, if it did.
    """

    name: str
    passed: bool
    result: str = ""
    remedy: str = ""
    advisory: bool = False
    error: FluobookError | None = field(default=None, repr=False)

    @classmethod
    def failed(cls, name: str, error: FluobookError) -> Check:
        """A check that ended in an error; the error's own cause and remedy are kept."""
        result = f"{error.message}; {error.cause}" if error.cause else error.message
        remedy = error.remedy or present(error, phase=PHASE).advice
        return cls(name, passed=False, result=result, remedy=remedy, error=error)

    @property
    def failure(self) -> str:
        """Code and title of the known failure in brackets; "" if it is not known, or the result names it."""
        failure = self._known.failure
        return f" ({failure})" if failure and failure not in self.result else ""

    @property
    def advice(self) -> str:
        """Its remedy, or that of the known failure."""
        return self.remedy or (self._known.advice if self._known.failure else "")

    @cached_property
    def _known(self) -> Presentation:
        return present(self.error or FluobookError(f"{self.name}: {self.result}"), phase=PHASE)


@dataclass(frozen=True)
class Checks(Displayed):
    """The checks of one stage, shown as a table."""

    stage: str
    checks: Sequence[Check]
    failure: type[CheckFailed] = CheckFailed
    """What `require` raises, unless a check ended in an error."""

    @property
    def ok(self) -> bool:
        """Whether every check passed that is not advisory."""
        return all(check.passed or check.advisory for check in self.checks)

    def require(self) -> None:
        """Raise unless every check passed.

        Raises:
            CheckFailed: at least one check failed that is not advisory; the message lists them.
        """
        failed = [check for check in self.checks if not check.passed and not check.advisory]
        if failed:
            listed = "".join(f"\n  ✗ {check.name}: {check.result}{check.failure}" for check in failed)
            remedies = list(dict.fromkeys(line for check in failed for line in check.advice.splitlines()))
            remedy = "\n          ".join(remedies) or "inspect the results, then run the stage again"
            count = f"{len(failed)} of {len(self.checks)} checks"
            kind = CheckFailed if any(check.error for check in failed) else self.failure
            cause = next((check.error for check in failed if check.error), None)
            raise kind(f"{self.stage}: {count} failed{listed}", remedy=remedy) from cause

    def table(self) -> Table:
        """Each check with its result."""
        rows = [[Cell("", _tone(check)), check.name, check.result] for check in self.checks]
        good = sum(check.passed for check in self.checks)
        return Table(
            f"checks of {self.stage}",
            ["", "check", "result"],
            rows,
            note="all checks passed" if good == len(self.checks) else f"{good} of {len(self.checks)} checks passed",
        )


def _tone(check: Check) -> str:
    return "ok" if check.passed else "wait" if check.advisory else "bad"


@dataclass(frozen=True)
class CheckGroup:
    """Checks that are made together.

    Args:
        name: the failed check that is shown when the group ends in an error.
        checks: makes the checks.
    """

    name: str
    checks: Callable[[RunContext], Iterable[Check]]


def run_groups(context: RunContext, groups: Iterable[CheckGroup]) -> Sequence[Check]:
    """The checks of all groups, in their order; the groups run in parallel.

    A client's error becomes a failed check, so that the other groups still count.
    """
    results = in_parallel(lambda group: checks_until_error(group.name, lambda: group.checks(context)), groups)
    return [check for checks in results for check in checks]


def checks_until_error(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks; if an error ends them, those made before it and a failed check of the given name."""
    made: list[Check] = []
    try:
        made.extend(checks())
    except FluobookError as error:
        made.append(Check.failed(name, error))
    return made


def error_of(work: Callable[[], Any]) -> FluobookError | None:
    """The error that the work ends in; None if it succeeds."""
    try:
        work()
    except FluobookError as error:
        return error
    return None


SHOWN = 3


def some(texts: Iterable[str]) -> str:
    """The first texts, each once, and how many more there are."""
    distinct = list(dict.fromkeys(texts))
    more = len(distinct) - SHOWN
    return "; ".join(distinct[:SHOWN]) + (f"; +{more} more" if more > 0 else "")


def title_of(obj: Mapping[str, Any]) -> str:
    """Namespace and name of an object, for people."""
    metadata = obj["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def all_of(name: str, total: int, problems: Sequence[str], remedy: str) -> Check:
    """Whether nothing is wrong with any of so many objects; says how many are well, and what the first others have."""
    more = f"; +{len(problems) - NAMED} more" if len(problems) > NAMED else ""
    shown = f"; {'; '.join(problems[:NAMED])}{more}" if problems else ""
    return Check(name, not problems, f"{total - len(problems)} of {total}{shown}", remedy)


def count(total: int, failing: Sequence[str]) -> str:
    """How many of `total` objects pass, and the names of the others: "2 of 3; not: talos-cp-1"."""
    return f"{total - len(failing)} of {total}" + (f"; not: {', '.join(failing)}" if failing else "")
