"""Waiting: for a condition with a deadline, and only until the run is cancelled.

Python raises KeyboardInterrupt in the main thread alone, and then waits for the other threads. So a signal is noted in
a `Cancellation`, and every wait in every thread checks it; else an interrupted stage would go on until its longest
deadline.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fluobook.errors import (
    AccessDenied,
    DeadlineExceeded,
    FluobookError,
    ForeignObject,
    Locked,
    ParamsError,
    Refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

FINAL = (AccessDenied, ForeignObject, Locked, ParamsError, Refused)
"""Errors that waiting does not fix."""

GROWTH, LONGEST = 1.3, 5.0
"""How the interval grows from one try to the next, and how many times the first interval it may become."""


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


def wait_until(
    check: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    cancellation: Cancellation,
    interval: float = 0.2,
    final: tuple[type[FluobookError], ...] = (),
    remedy: str = "",
) -> T:
    """Call `check` until it returns something other than None.

    Args:
        check: returns None while there is nothing yet. A `FluobookError` counts as "not yet", except for `FINAL`.
        what: what is waited for, for the error message.
        timeout: seconds.
        cancellation: ends the wait early.
        interval: seconds between the first two calls; it grows to five times that.
        final: further errors that waiting does not fix here.
        remedy: what to do after a timeout.

    Raises:
        DeadlineExceeded: there was nothing in time; its cause is the last error.
        Cancelled: the run was cancelled.

    Example:
        >>> wait_until(lambda: 7, what="a number", timeout=1, cancellation=Cancellation())
        7
    """
    until, pause, cause = time.monotonic() + timeout, interval, ""
    kinds: tuple[type[FluobookError], ...] = (*FINAL, *final)
    while True:
        try:
            value = check()
        except kinds:
            raise
        except FluobookError as error:
            value, cause = None, error.message
        if value is not None:
            return value
        if time.monotonic() + pause > until:
            raise DeadlineExceeded(f"timed out after {timeout:g} s waiting for {what}", cause=cause, remedy=remedy)
        cancellation.pause(pause)
        pause = min(pause * GROWTH, interval * LONGEST)
