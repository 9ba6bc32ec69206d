"""Tables that change while a person watches, and that are shown once, finished, when nobody does.

nbval and papermill keep only the first or the last frame of a changing display, so a headless run must emit just one.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fluobook.display.table import Table

REPAINTS_PER_SECOND = 2.0


def interactive() -> bool:
    """Whether a person can be asked and shown things that change.

    JupyterLab lets a kernel ask for input, papermill and nbval do not; `FLUOBOOK_RENDER=live|final` overrules.
    """
    wish = os.environ.get("FLUOBOOK_RENDER", "")
    if wish:
        return wish == "live"
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


class Live:
    """A table that is redrawn at most twice a second, from any thread.

    Args:
        render: makes the table as things stand now.
        live: whether somebody watches; found out when not given.
        clock: tells the seconds by which repaints are spaced.
    """

    def __init__(
        self,
        render: Callable[[], Table],
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._render = render
        self._clock = clock
        self._live = interactive() if live is None else live
        self._handle: Any = None
        self._painted = -math.inf
        self._last = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._live:
            self.paint()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self.paint()
        else:
            _display(self._render())

    def touch(self) -> None:
        """Say that something changed; it is shown if the last repaint was long enough ago."""
        if not self._live:
            return
        with self._lock:
            if self._clock() - self._painted >= 1 / REPAINTS_PER_SECOND:
                self._paint()

    def paint(self) -> None:
        """Show the table as it stands, if it differs from what is shown."""
        with self._lock:
            self._paint()

    def _paint(self) -> None:
        table = self._render()
        if (text := table.text()) == self._last:
            return
        self._last, self._painted = text, self._clock()
        if self._handle is None:
            self._handle = _display(table, display_id=True)
        else:
            self._handle.update(table)


def show_once(table: Table) -> None:
    """Show a finished table."""
    _display(table)


def _display(table: Table, **options: Any) -> Any:
    if _shell() is None:
        print(table.text(), flush=True)  # noqa: T201 (outside a notebook the terminal is the display)
        return _Printed()
    from IPython.display import display  # noqa: PLC0415 (heavy, and only there in a kernel)

    return display(table, **options)


class _Printed:
    """Stands for a display handle where there is only a terminal."""

    def update(self, table: Table) -> None:
        print(table.text(), flush=True)  # noqa: T201
