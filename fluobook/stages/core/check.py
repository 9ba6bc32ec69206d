"""Checks: claims about the live system, each with the evidence it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Cell, Table
from fluobook.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Check:
    """One verified claim.

    Args:
        claim: what should be true, in words.
        ok: whether it is.
        evidence: what was seen; without times, ports and random names, so that two runs say the same.
        remedy: what to do when it is not true.
    """

    claim: str
    ok: bool
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Checks:
    """The checks of one stage, shown as a table."""

    stage: str
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(check.ok for check in self.checks)

    def require(self) -> None:
        """Go on only if every claim holds.

        Raises:
            CheckFailed: some do not; it lists them.
        """
        failed = [check for check in self.checks if not check.ok]
        if failed:
            listed = "".join(f"\n  ✗ {check.claim}: {check.evidence}" for check in failed)
            remedies = list(dict.fromkeys(check.remedy for check in failed if check.remedy))
            remedy = "\n          ".join(remedies) or "look at the evidence, then run the stage again"
            count = f"{len(failed)} of {len(self.checks)} checks"
            raise CheckFailed(f"{self.stage}: {count} do not hold{listed}", remedy=remedy)

    def table(self) -> Table:
        """Each claim with its mark and evidence."""
        rows = [[Cell("", "ok" if check.ok else "bad"), check.claim, check.evidence] for check in self.checks]
        good = sum(check.ok for check in self.checks)
        return Table(
            f"checks of {self.stage}", ["", "claim", "evidence"], rows, note=f"{good} of {len(self.checks)} hold"
        )

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self.table()._repr_mimebundle_(**options)

    def __str__(self) -> str:
        return self.table().text()
