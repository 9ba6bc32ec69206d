"""Waiting for what has to come, within a bound; where it does not, the test says what was there instead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND = 180.0
PAUSE = 0.2
T = TypeVar("T")


def until(read: Callable[[], T], wanted: Callable[[T], object], *, seconds: float = BOUND) -> T:
    """What `read` returns as soon as it is `wanted`."""
    end = time.monotonic() + seconds
    while not wanted(value := read()):
        assert time.monotonic() < end, f"timed out; last value: {value}"
        time.sleep(PAUSE)
    return value
