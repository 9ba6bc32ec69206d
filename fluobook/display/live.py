"""Tables that change while somebody watches, and that are shown once, finished, when nobody does.

nbval and papermill keep only the first or the last frame of a changing display, so a headless run emits just one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from fluobook.display.buttons import Place
from fluobook.display.kernel import interactive, show
from fluobook.display.table import Table

REPAINTS_PER_SECOND = 2.0


class Live:
    """A table that is redrawn at most twice a second, from any thread.

    Args:
        render: returns the current table.
        place: where to show it instead of an output of its own.
        live: whether somebody watches; detected if not given.
        clock: returns seconds; repaints are spaced by it.
    """

    def __init__(
        self,
        render: Callable[[], Table],
        *,
        place: Place | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._render = render
        self._clock = clock
        self.live = interactive() if live is None else live
        self._place = place
        self._handle: Any = place
        self._painted = -math.inf
        self._last = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self.live:
            self.paint()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._place:
            self._place.finish(self._render())
        elif self.live:
            self.paint()
        else:
            show(self._render())

    def touch(self) -> None:
        """Report a change; it is shown if the last repaint was long enough ago."""
        if not self.live:
            return
        with self._lock:
            if self._clock() - self._painted >= 1 / REPAINTS_PER_SECOND:
                self._paint()

    def paint(self) -> None:
        """Show the current table, if it differs from the one that is shown."""
        with self._lock:
            self._paint()

    def _paint(self) -> None:
        table = self._render()
        if (text := table.text()) == self._last:
            return
        self._last, self._painted = text, self._clock()
        if self._handle is None:
            self._handle = show(table, display_id=True)
        else:
            self._handle.update(table)
