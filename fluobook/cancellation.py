"""How work is broken off: a signal is noted, and every wait in every thread looks at the note.

Python raises KeyboardInterrupt in the main thread alone, and then waits for the others. Without the note an interrupted
stage would go on until its longest deadline.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cancelled(Exception):
    """The run was interrupted during a wait. Not one of our errors, which a wait may take for "not yet"."""


class Cancellation:
    """Whether work is to be broken off; shared by the threads of one context."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def order(self) -> None:
        """Break off: every pause ends at once."""
        self._event.set()

    def check(self, *_: Any) -> None:
        """Go on only if nothing is to be broken off; fits wherever a wait calls somebody back.

        Raises:
            Cancelled: it is.
        """
        if self._event.is_set():
            raise Cancelled("interrupted")

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until work is broken off.

        Raises:
            Cancelled: it was.
        """
        if self._event.wait(seconds):
            raise Cancelled("interrupted")

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """While the block runs, SIGINT orders the cancellation before Python's own handler raises KeyboardInterrupt."""
        self._event.clear()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def handler(number: int, frame: Any) -> None:
            self.order()
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
