"""Reachability as a matrix: a row for each port of each pod, a column for each namespace that may ask for it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from fluobook.display.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.gitops.reachability import Cell as Question

ALL, SOME, NONE = "●", "◐", "·"
SHORT, SHORT_ENOUGH = 4, 6
"""Letters of a column's head, or as many as tell it from the others; and of a name that is not cut at all."""


def matrix_table(questions: Sequence[Question], namespaces: Mapping[str, str]) -> Table:
    """The matrix of the ports that reachability.yaml lists, and of others whose answer is not the expected one.

    Args:
        questions: every source against every port, answered.
        namespaces: the namespace of each source; "" for what is in none, which is a column of its own.
    """
    columns = list(dict.fromkeys(sorted(namespaces[one.source] or one.source for one in questions)))
    heads = {name: _short(name, columns) for name in columns}
    rows = []
    for _, group in groupby(questions, key=lambda one: (one.target, one.port, one.protocol)):
        asked = list(group)
        good = all(one.is_as_expected for one in asked)
        if good and not asked[0].is_listed:
            continue
        port = f"{asked[0].port}/{asked[0].protocol}"
        of = {name: [one for one in asked if (namespaces[one.source] or one.source) == name] for name in columns}
        rows.append([Cell(asked[0].target, "ok" if good else "bad"), port, *(_mark(of[name]) for name in columns)])
    legend = ", ".join(f"{head} {name}" for name, head in heads.items() if head != name)
    wrong = sum(not one.is_as_expected for one in questions)
    note = (
        f"{ALL} every pod of the namespace, {SOME} some of them, {NONE} none; ✓ as reachability.yaml expects\n"
        f"{legend}\n{len(questions)} questions, {wrong} answered otherwise than expected"
    )
    return Table("who may reach whom", ["pod", "port", *heads.values()], rows, note=note, limit=1000)


def sources_table(questions: Sequence[Question], target: str) -> Table:
    """Who may reach one pod, on each of its ports, and the reasons that reachability.yaml gives."""
    rows = []
    for (port, protocol), group in groupby(
        (one for one in questions if one.target == target), key=lambda one: (one.port, one.protocol)
    ):
        asked = list(group)
        tone = "ok" if all(one.is_as_expected for one in asked) else "bad"
        allowed = [one for one in asked if one.verdict.allowed]
        whom = "everyone" if len(allowed) == len(asked) else ", ".join(one.source for one in allowed) or "nobody"
        rows.append(
            [Cell(f"{port}/{protocol}", tone), whom, "; ".join(dict.fromkeys(one.why for one in allowed if one.why))]
        )
    return Table(f"who may reach {target}", ["port", "source", "why"], rows)


def _mark(asked: Sequence[Question]) -> str:
    allowed = sum(one.verdict.allowed for one in asked)
    if not asked:
        return ""  # the pod is alone in its namespace
    return NONE if not allowed else ALL if allowed == len(asked) else SOME


def _short(name: str, names: Sequence[str]) -> str:
    """The shortest beginning that no other name has; a name that another begins with is told whole."""
    for length in range(SHORT, len(name)) if len(name) > SHORT_ENOUGH else ():
        if not any(other.startswith(name[:length]) for other in names if other != name):
            return name[:length]
    return name
