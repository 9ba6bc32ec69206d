"""Quantities of Kubernetes as numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

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
