"""Checks: verified statements about the live system, each with its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Cell, Table
from fluobook.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Check:
    """One verified statement about the live system.

    Args:
        name: the statement, such as "every VM is running".
        passed: whether it is true.
        result: what was observed; without times, ports and random names, so that two runs report the same.
        remedy: what to do when the check failed.
    """

    name: str
    passed: bool
    result: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Checks:
    """The checks of one stage, shown as a table."""

    stage: str
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raise unless every check passed.

        Raises:
            CheckFailed: at least one check failed; the message lists them.
        """
        failed = [check for check in self.checks if not check.passed]
        if failed:
            listed = "".join(f"\n  ✗ {check.name}: {check.result}" for check in failed)
            remedies = list(dict.fromkeys(check.remedy for check in failed if check.remedy))
            remedy = "\n          ".join(remedies) or "inspect the results, then run the stage again"
            count = f"{len(failed)} of {len(self.checks)} checks"
            raise CheckFailed(f"{self.stage}: {count} failed{listed}", remedy=remedy)

    def table(self) -> Table:
        """Each check with its result."""
        rows = [[Cell("", "ok" if check.passed else "bad"), check.name, check.result] for check in self.checks]
        good = sum(check.passed for check in self.checks)
        return Table(
            f"checks of {self.stage}",
            ["", "check", "result"],
            rows,
            note="all checks passed" if self.ok else f"{good} of {len(self.checks)} checks passed",
        )

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self.table()._repr_mimebundle_(**options)

    def __str__(self) -> str:
        return self.table().text()
