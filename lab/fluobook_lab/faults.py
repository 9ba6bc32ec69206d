"""The faults that the lab can inject, by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fluobook_lab.data import table

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULTS: dict[str, str] = table("faults.yaml")
"""Every fault: its name and its effect."""


class Faults:
    """The faults of one lab; a name that is given n times happens n times.

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
        """Inject a fault while the lab runs."""
        Faults([name])
        self._left[name] += times

    def take(self, name: str) -> bool:
        """Whether the fault happens now; counts as one of its times."""
        happens = self._left[name] > 0
        self._left[name] -= happens
        return happens

    def on(self, name: str) -> bool:
        """Whether the fault is injected; it lasts."""
        return self._left[name] > 0
