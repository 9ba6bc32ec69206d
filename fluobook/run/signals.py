"""SIGINT and SIGTERM during a headless run: the running cell is interrupted, then the run ends in an orderly way.

A signal between two cells is not lost: the next cell does not start.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 8.0
"""Seconds that an interrupted cell has to end by itself before its kernel is killed."""

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal came while no cell ran: no further cell starts."""


class Signals:
    """The signal that ended a run, if one did, and the kernel whose cell has to be interrupted."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._kernel: Any = None

    @property
    def exit_code(self) -> int | None:
        """128 plus the signal's number, or None."""
        return None if self.caught is None else 128 + self.caught

    @property
    def name(self) -> str:
        """The signal's name, or nothing."""
        return "" if self.caught is None else signal.Signals(self.caught).name

    @contextmanager
    def handled(self, *also: signal.Signals) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and `also` while a run lasts; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (*HANDLED, *also)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            Interrupted: a signal came.
        """
        if self.caught is not None:
            raise Interrupted(self.name)

    def cell_started(self, kernel: Any) -> None:
        """A cell starts in this kernel's process.

        Raises:
            Interrupted: a signal came before it.
        """
        self._kernel = kernel
        try:
            self.check()
        except Interrupted:
            self._kernel = None
            raise

    def cell_ended(self) -> None:
        """The cell has ended."""
        self._kernel = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        second, self.caught = self.caught is not None, number
        if self._kernel is None:
            return
        if second:
            self._kernel.kill()
            return
        self._kernel.send_signal(signal.SIGINT)
        killer = threading.Timer(GRACE, self._kill, [self._kernel])
        killer.daemon = True
        killer.start()

    def _kill(self, kernel: Any) -> None:
        if self._kernel is kernel:
            kernel.kill()
