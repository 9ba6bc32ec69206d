"""Waiting for a condition with a deadline, and repeating a call that failed; both end when the run is cancelled.

Python raises KeyboardInterrupt in the main thread alone, and then waits for the other threads. So a signal is noted in
a `Cancellation`, and every wait in every thread checks it; else an interrupted stage would go on until its longest
deadline.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from fluobook import errors

T = TypeVar("T")

on_wait: ContextVar[Callable[[str, float], None] | None] = ContextVar("on_wait", default=None)
"""Receives what each wait of this thread waits for, and its limit in seconds; for the progress of an action."""

FINAL = (errors.AccessDenied, errors.ForeignObject, errors.Locked, errors.ParamsError, errors.Refused)
"""Errors that waiting does not fix."""


class Cancelled(Exception):
    """The run was interrupted during a wait. Not one of our errors, which a wait may take for "not yet"."""


class Cancellation:
    """Whether the run is cancelled; shared by the threads of one context."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def order(self) -> None:
        """Cancel: every pause ends at once."""
        self._event.set()

    def check(self, *_: Any) -> None:
        """Raise if the run is cancelled; can be the callback of any wait.

        Raises:
            Cancelled: it is.
        """
        if self._event.is_set():
            raise Cancelled("interrupted")

    def pause(self, seconds: float) -> None:
        """Sleep, but end at once if the run is cancelled.

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


class Backoff:
    """Pauses that grow from one attempt to the next.

    Args:
        first: seconds of the first pause.
        longest: seconds of the longest one.
        growth: the factor from one pause to the next.
    """

    def __init__(self, first: float, longest: float, growth: float = 2.0) -> None:
        self._first, self._longest, self._growth = first, longest, growth
        self._next = first

    def next(self) -> float:
        """Seconds to pause before the next attempt."""
        pause, self._next = self._next, min(self._next * self._growth, self._longest)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again, after a success."""
        self._next = self._first


def wait_until(
    check: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    cancellation: Cancellation,
    interval: float | Callable[[float], float] = 0.2,
    final: tuple[type[errors.FluobookError], ...] = (),
    remedy: str = "",
) -> T:
    """Call `check` until it returns something other than None.

    Args:
        check: returns None while there is nothing yet. A `FluobookError` counts as "not yet", except for `FINAL`.
        what: what is waited for, for the error message.
        timeout: seconds; `check` is called a last time at the end of them.
        cancellation: ends the wait early.
        interval: seconds between the first two calls, which grow to five times that; or a function that returns the
            seconds to pause after so many seconds of waiting.
        final: further errors that waiting does not fix here.
        remedy: what to do after a timeout.

    Raises:
        DeadlineExceeded: there was nothing in time; it is raised from the last error.
        Cancelled: the run was cancelled.

    Example:
        >>> wait_until(lambda: 7, what="a number", timeout=1, cancellation=Cancellation())
        7
    """
    if (receive := on_wait.get()) is not None:
        receive(what, timeout)
    start, last_error = time.monotonic(), None
    raised: tuple[type[errors.FluobookError], ...] = (*FINAL, *final)
    backoff = None if callable(interval) else Backoff(interval, 5 * interval, 1.3)
    while True:
        waited = time.monotonic() - start
        try:
            if (value := check()) is not None:
                return value
            last_error = None
        except raised:
            raise
        except errors.FluobookError as error:
            last_error = error
        if waited >= timeout:
            raise errors.DeadlineExceeded(
                f"timed out after {timeout:g} s waiting for {what}",
                cause=last_error.message if last_error else "",
                remedy=remedy,
            ) from last_error
        pause = interval(waited) if callable(interval) else backoff.next() if backoff else 0.0
        cancellation.pause(max(0.0, min(pause, timeout - waited)))


def retry(
    call: Callable[[], T],
    *,
    if_error: Callable[[errors.FluobookError], bool],
    pauses: Sequence[float],
    seconds: float = float("inf"),
    cancellation: Cancellation | None = None,
) -> T:
    """Call, and repeat the call after each of the pauses (seconds) while its error is one that may pass.

    If the server asks to be called again later (`retry_after`), it is, as long as the deadline allows.

    Args:
        call: something that may be done twice.
        if_error: whether a repetition may fix this error.
        pauses: seconds before each repetition; so many repetitions at most, unless the server asks for more.
        seconds: the deadline, after which no repetition begins.
        cancellation: ends a pause early.

    Raises:
        FluobookError: the last error.
        Cancelled: the run was cancelled.
    """
    cancellation = cancellation or Cancellation()
    ends, remaining = time.monotonic() + seconds, list(pauses)
    while True:
        try:
            return call()
        except errors.FluobookError as error:
            requested = getattr(error, "retry_after", None) if pauses else None
            if not if_error(error) or not (remaining or requested is not None):
                raise
            pause = max(remaining.pop(0) if remaining else pauses[-1], requested or 0.0)
            if time.monotonic() + pause > ends:
                raise
        cancellation.pause(pause)
