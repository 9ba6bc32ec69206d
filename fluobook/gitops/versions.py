"""The chart versions of the tree against the newest stable ones that their repositories list."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fluobook.errors import OutsideError
from fluobook.gitops.knowledge import chart_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fluobook.clients.helm import ChartVersion
    from fluobook.gitops.application import Application
    from fluobook.gitops.tree import Tree

    Index = Callable[[str, str], Iterable[ChartVersion]]

Step = Literal["newest", "patch", "minor", "major", "unlisted", "retired", "unanswered"]
_WIDTH = 6
"""Repositories asked at once."""
_STABLE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(\+.*)?")


@dataclass(frozen=True)
class Newer:
    """One chart of the tree: the version it is pinned at, the newest stable one, and how far away that is.

    `step` is "newest" where there is nothing newer, "unlisted" where the repository does not list the pinned version,
    "retired" where nothing newer will ever come (the project has ended, or the repository marks it deprecated), and
    "unanswered" where the repository gave no list: `problem` says why.
    """

    application: str
    chart: str
    pinned: str
    newest: str
    step: Step
    file: Path
    problem: str = ""


def newer(tree: Tree, index: Index) -> list[Newer]:
    """Every chart of the tree, compared with its repository.

    Args:
        tree: the tree; take it from `for_phase` to ask the mirrors.
        index: what a repository lists of a chart, such as `fluobook.clients.helm.versions`.
    """
    charts = [one for one in tree.applications if one.chart]
    with ThreadPoolExecutor(_WIDTH) as pool:
        return list(pool.map(lambda one: _newer(one, index), charts))


def _newer(one: Application, index: Index) -> Newer:
    try:
        listed = list(index(one.repo, one.chart))
    except OutsideError as error:
        return Newer(one.name, one.chart, one.version, "", "unanswered", one.file, error.message)
    stable = (entry.version for entry in listed if _numbers(entry.version))
    newest = max(stable, key=_numbers, default=one.version)
    retired = chart_of(one).retired or any(entry.deprecated for entry in listed if entry.version == newest)
    known = any(entry.version.removeprefix("v") == one.version.removeprefix("v") for entry in listed)
    step: Step = "retired" if retired else _step(one.version, newest) if known else "unlisted"
    return Newer(one.name, one.chart, one.version, newest, step, one.file)


def _step(pinned: str, newest: str) -> Step:
    """Which of the three numbers differs first."""
    here, there = _numbers(pinned), _numbers(newest)
    names: tuple[Step, ...] = ("major", "minor", "patch")
    return (
        next((name for name, a, b in zip(names, here, there, strict=False) if b > a), "newest")
        if there > here
        else "newest"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a stable version; () for any other."""
    found = _STABLE.fullmatch(version)
    return tuple(map(int, found.groups()[:3])) if found else ()
