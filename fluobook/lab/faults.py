"""Faults that the lab can play, by name; tests and rehearsals ask for them to see that each is survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

FAULTS: dict[str, str] = {}
"""Every fault that exists: its dotted name, and what it does. Kept sorted."""


class Faults:
    """The faults asked for in one lab; a name given n times happens n times.

    Args:
        names: names from `FAULTS`.

    Raises:
        ValueError: a name is not in `FAULTS`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._left = Counter(names)
        if unknown := sorted(set(self._left) - set(FAULTS)):
            raise ValueError(f"unknown faults {', '.join(unknown)}; known: {', '.join(sorted(FAULTS))}")

    def add(self, name: str, times: int = 1) -> None:
        """Ask for a fault while the lab runs."""
        Faults([name])
        self._left[name] += times

    def take(self, name: str) -> bool:
        """Whether the fault happens now; uses up one of its times."""
        happens = self._left[name] > 0
        self._left[name] -= happens
        return happens

    def on(self, name: str) -> bool:
        """Whether the fault was asked for; it lasts."""
        return self._left[name] > 0
