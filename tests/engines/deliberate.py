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


def _alike(*parts: str) -> Callable[[Any, Any], bool]:
    """Both refuse with the same code, and these words are in both messages."""

    def holds(ours: Any, theirs: Any) -> bool:
        told = [answer["message"] for answer in (ours, theirs)]
        return ours["refused"] == theirs["refused"] and all(part in text for part in parts for text in told)

    return holds


DELIBERATE: dict[tuple[str, int], Deliberate] = {
    ("each kind of patch does what it says", 13): Deliberate(
        "a patch to another kind is refused for that, not for what that kind cannot decode", _alike("is invalid: patch")
    ),
    ("lists are cut into pages", 6): Deliberate(
        "what is wrong with a token is told in the words of another decoder",
        _alike("invalid continue token: continue key is not valid: "),
    ),
    ("scale and status are subresources", 5): Deliberate(
        "pods get no volume with a token: nothing of the lab runs in them",
        lambda ours, theirs: ours["spec"]["serviceAccountName"] == theirs["spec"]["serviceAccountName"],
    ),
    ("scale and status are subresources", 9): Deliberate(
        "the real message also shows the difference, as Go prints it", _alike("pod updates may not change fields other")
    ),
    ("custom resources have their schema", 21): Deliberate(
        "a definition takes its objects along at once, without a finalizer of its own",
        lambda ours, theirs: (ours, theirs) == ("Status", "CustomResourceDefinition"),
    ),
}
"""By the case's name and the step's number."""
