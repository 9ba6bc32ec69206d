"""How many actions may be at work on one foreign system at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Limit:
    """As many places as one foreign system bears at once.

    Args:
        width: how many.
        freed: told whenever one becomes free.
    """

    def __init__(self, width: int, freed: Callable[[], None]) -> None:
        self._places = threading.Semaphore(width)
        self._freed = freed

    def take(self) -> Place | None:
        """A place, if one is free."""
        return Place(self) if self._places.acquire(blocking=False) else None

    def give_back(self) -> None:
        """Somebody left."""
        self._places.release()
        self._freed()


class Place:
    """One of the places of a foreign system; given back once."""

    def __init__(self, limit: Limit) -> None:
        self._limit: Limit | None = limit

    def leave(self) -> None:
        """Give it back, if it has not been."""
        if self._limit is not None:
            self._limit.give_back()
            self._limit = None
