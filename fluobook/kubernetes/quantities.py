"""Quantities of Kubernetes as numbers, and what disruption budgets count."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def amount(quantity: Any) -> Decimal:
    """A quantity as a number; 0 for what is none, which the rule `shape` reports."""
    text = str(quantity)
    number, factor = text.rstrip("".join(_SUFFIXES)), Decimal(1)
    if text[-2:] in _BINARY:
        number, factor = text[:-2], Decimal(1024) ** (_BINARY.index(text[-2:]) + 1)
    elif text[len(number) :] in _SUFFIXES:
        factor = Decimal(10) ** _SUFFIXES[text[len(number) :]]
    try:
        return Decimal(number) * factor
    except ArithmeticError:
        return Decimal(0)


def disruptions_allowed(budget: Mapping[str, Any], total: int, healthy: int) -> int:
    """How many pods a PodDisruptionBudget lets go; none if it is 0 or less.

    Args:
        budget: its spec; percentages are rounded up.
        total: how many pods it covers.
        healthy: how many of them are healthy.
    """
    is_maximum = "maxUnavailable" in budget
    limit = str(budget["maxUnavailable"] if is_maximum else budget.get("minAvailable", 1))
    share = -(-int(limit.removesuffix("%")) * total // 100) if limit.endswith("%") else int(limit)
    return healthy - total + share if is_maximum else healthy - share
