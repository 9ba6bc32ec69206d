"""SIGINT and SIGTERM during a headless run: the cell at work is interrupted, then the run ends in good order.

A signal between two cells must not get lost either: the next cell does not begin.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

GRACE = 8.0
"""Seconds that an interrupted cell gets to end by itself before its kernel is killed."""

HEARD = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal came while no cell was at work: no other one begins."""


class Signals:
    """What signal ended a run, if one did, and the kernel whose cell has to hear of it."""

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
    def heard(self) -> Iterator[None]:
        """Listen while a run lasts; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in HEARD}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Go on only if no signal came.

        Raises:
            Interrupted: one did.
        """
        if self.caught is not None:
            raise Interrupted(self.name)

    def at_work(self, kernel: Any) -> None:
        """A cell begins in this kernel's process.

        Raises:
            Interrupted: a signal came before it.
        """
        self._kernel = kernel
        try:
            self.check()
        except Interrupted:
            self._kernel = None
            raise

    def at_rest(self) -> None:
        """The cell has ended."""
        self._kernel = None

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        again, self.caught = self.caught is not None, number
        if self._kernel is None:
            return
        if again:
            self._kernel.kill()
            return
        self._kernel.send_signal(signal.SIGINT)
        killer = threading.Timer(GRACE, self._kill, [self._kernel])
        killer.daemon = True
        killer.start()

    def _kill(self, kernel: Any) -> None:
        if self._kernel is kernel:
            kernel.kill()
