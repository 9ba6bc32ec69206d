"""Tables that change while somebody watches, and that are shown once, finished, when nobody does.

nbval and papermill keep only the first or the last frame of a changing display, so a headless run emits just one.
While somebody watches, a thread sends what has changed to a widget, twice a second at most, and keeps the whole table
for the record of the run. A table that is closed becomes an output without a widget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from fluobook.display.buttons import Place
from fluobook.display.kernel import (
    bundle,
    current_kernel,
    interactive,
    record_display,
    show,
    update_display,
    widget_bundle,
)
from fluobook.display.table import Table

if TYPE_CHECKING:
    from pandas import DataFrame

UPDATES_PER_SECOND = 2.0
RECORDED = 5.0
"""Seconds from one record of a table that changes to the next."""


class Live:
    """A table that follows its source until it is closed; `touch` may be called from any thread.

    Shown by `show`, as the result of a cell, or for the time of a `with` block, which ends with the finished table.

    Args:
        render: returns the current table.
        place: where to show it instead of an output of its own.
        live: whether somebody watches; detected if not given.
        whole: returns the table for `to_frame`, if `render` returns parts of it at first.

    Attributes:
        on_close: called once, when it is closed.
    """

    def __init__(
        self,
        render: Callable[[], Table],
        *,
        place: Place | None = None,
        live: bool | None = None,
        whole: Callable[[], Table] | None = None,
    ) -> None:
        self._render = render
        self._place, self._every = place, 1.0 if place else RECORDED  # in a gate's place times pass
        self._whole = whole or render
        self.on_close: list[Callable[[], object]] = []
        self.live = interactive() if live is None else live
        self._widget: Any = None
        self._displays: list[str] = []
        self._changed, self._closed = threading.Event(), threading.Event()
        self._recorded = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self.live:
            self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.close()
        else:
            show(self._render())

    def __repr__(self) -> str:
        return self._render().text()

    def _ipython_display_(self) -> None:
        self.show()

    def to_frame(self) -> DataFrame:
        """The present rows as a pandas frame with typed columns."""
        return self._whole().to_frame()

    @property
    def closed(self) -> bool:
        """Whether it follows its source no more."""
        return self._closed.is_set()

    def repeat(self, call: Callable[[], object], seconds: float) -> None:
        """Call something now and then again, in a thread, until the table is closed."""

        def run() -> None:
            while not self.closed:
                call()
                self.touch()
                self._closed.wait(seconds)

        threading.Thread(target=run, name="beside a live table", daemon=True).start()

    def show(self) -> None:
        """Show the table, live if somebody watches and it is not closed; every output follows the same source."""
        table = self._render()
        if not self.live or self._closed.is_set() or not current_kernel():
            show(table)
            return
        with self._lock:
            if self._widget is None:
                from fluobook.display.widget import TableWidget  # noqa: PLC0415 (heavy, and only a kernel needs it)

                self._widget = TableWidget()
                threading.Thread(target=self._follow, name=f"live {table.title}", daemon=True).start()
            self._widget.put(table)
        if self._place:
            self._place.put(self._widget, table)
            return
        from IPython.display import display  # noqa: PLC0415 (heavy, and only available in a kernel)

        self._displays.append(uuid4().hex)
        display(widget_bundle(self._widget, table), raw=True, display_id=self._displays[-1])

    def touch(self) -> None:
        """Report a change."""
        if not self._changed.is_set():  # setting it takes a lock
            self._changed.set()

    def close(self) -> None:
        """Stop following. What is shown becomes a table without a widget, as it is now."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._changed.set()
        table = self._render()
        for call in self.on_close:
            call()
        if self._place:
            self._place.finish(table)
        elif not current_kernel():
            show(table)
        for display_id in self._displays:
            update_display(bundle(table), display_id)
        with self._lock:
            if self._widget is not None:  # a page that was loaded later does not know the output, only the widget
                self._widget.put(replace(table, note=f"{table.note}\nclosed".lstrip()))

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._changed.wait(self._every)
            self._changed.clear()
            with self._lock:
                if self._closed.is_set():
                    return
                self._update()
            self._closed.wait(1 / UPDATES_PER_SECOND)

    def _update(self) -> None:
        table = self._render()
        self._widget.put(table)
        if self._place:
            self._place.put(self._widget, table)
        if time.monotonic() - self._recorded >= RECORDED:
            self._recorded = time.monotonic()
            for display_id in self._displays:
                record_display(widget_bundle(self._widget, table), display_id)
