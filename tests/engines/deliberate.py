"""Where the embedded engine answers otherwise on purpose: each place, why, and what is asserted of it all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Deliberate:
    """A difference that is meant.

    Args:
        why: the reason.
        holds: what must be true of both answers nevertheless.
    """

    why: str
    holds: Callable[[Any, Any], bool]


DELIBERATE: dict[tuple[str, int], Deliberate] = {
    ("scale and status are subresources", 5): Deliberate(
        "pods get no volume with a token: nothing of the lab runs in them",
        lambda ours, theirs: ours["spec"]["serviceAccountName"] == theirs["spec"]["serviceAccountName"],
    ),
    ("custom resources have their schema", 21): Deliberate(
        "a definition takes its objects along at once, without a finalizer of its own",
        lambda ours, theirs: (ours, theirs) == ("Status", "CustomResourceDefinition"),
    ),
}
"""By the case's name and the step's number."""
