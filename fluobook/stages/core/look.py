"""Looks: each makes some checks; a client's error becomes a check that failed, so that the other looks still count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fluobook.errors import FluobookError
from fluobook.stages.core.check import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fluobook.context import RunContext

T = TypeVar("T")
R = TypeVar("R")
WIDTH = 16
"""Looks, or parts of one, that are taken at once."""


@dataclass(frozen=True)
class Look:
    """One look.

    Args:
        name: what is shown as untrue if the look cannot be taken at all.
        checks: takes it.
    """

    name: str
    checks: Callable[[RunContext], Iterable[Check]]


def take(context: RunContext, looks: Iterable[Look]) -> Sequence[Check]:
    """All checks of all looks, in the order of the looks; these are taken side by side."""
    found = side_by_side(lambda look: safely(look.name, lambda: look.checks(context)), looks)
    return [check for checks in found for check in checks]


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The work on every item, at once; results in the order of the items."""
    with ThreadPoolExecutor(WIDTH) as pool:
        return list(pool.map(work, items))


def safely(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks; where an error ends them, those made until then, and one that tells it under the name."""
    made: list[Check] = []
    try:
        made.extend(checks())
    except FluobookError as error:
        made.append(failed(name, error))
    return made


def failed(name: str, error: FluobookError) -> Check:
    """A check that an error answers; the error's own cause and remedy are kept."""
    evidence = f"{error.message}; {error.cause}" if error.cause else error.message
    return Check(name, passed=False, result=evidence, remedy=error.remedy)


def attempt(work: Callable[[], Any]) -> FluobookError | None:
    """The error that the work ends in, None if it goes well."""
    try:
        work()
    except FluobookError as error:
        return error
    return None
