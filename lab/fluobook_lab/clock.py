"""The world clock: every delay of the lab passes through it, so that one factor scales them all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """World time, `speed` times as fast as real time.

    Args:
        speed: world seconds per real second; 1 is real time, 60 turns a minute into a second.
        started: when the lab began, as `time.monotonic` tells it.
        epoch: the same moment as other programs' clocks tell it.
    """

    speed: float = 1.0
    started: float = field(default_factory=time.monotonic)
    epoch: float = field(default_factory=time.time)

    def now(self) -> float:
        """World seconds since the lab began."""
        return (time.monotonic() - self.started) * self.speed

    def at(self, moment: float) -> float:
        """World seconds from the beginning to a moment that another program told, in seconds since 1970."""
        return (moment - self.epoch) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of world time."""
        await asyncio.sleep(seconds / self.speed)
