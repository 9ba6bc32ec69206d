"""Waiting for what has to come, within a bound; where it does not, the test says what was there instead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND = 180.0
LOOK = 0.2
T = TypeVar("T")


def until(look: Callable[[], T], wanted: Callable[[T], object], *, seconds: float = BOUND) -> T:
    """What `look` sees as soon as it is `wanted`."""
    end = time.monotonic() + seconds
    while not wanted(seen := look()):
        assert time.monotonic() < end, f"never came; last seen: {seen}"
        time.sleep(LOOK)
    return seen
