"""The platform tree as tables: its Applications, what is wrong with it, who may reach whom, and what is newer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.show.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.gitops.versions import Newer, Step

_TONES: dict[Step, str] = {
    "newest": "ok",
    "patch": "wait",
    "minor": "wait",
    "major": "wait",
    "unlisted": "bad",
    "retired": "bad",
    "unanswered": "bad",
}


def versions_table(found: Sequence[Newer]) -> Table:
    """Each chart: the version it is pinned at, the newest stable one, and how far apart they are."""
    rows = [[Cell(one.step, _TONES[one.step]), one.application, one.chart, one.pinned, one.newest] for one in found]
    counts = [f"{sum(one.step == step for one in found)} {step}" for step in _TONES]
    note = ", ".join(count for count in counts if not count.startswith("0 "))
    return Table("chart versions", ["newest is a", "application", "chart", "pinned", "newest stable"], rows, note=note)
