"""The lab's clock: every simulated delay passes through it, so that one time scale applies to all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """Simulated time, `speed` times as fast as real time.

    Args:
        speed: the time scale: simulated seconds per real second; 1 is real time.
        started: the start of the lab, in `time.monotonic` seconds.
        epoch: the start of the lab, in seconds since 1970.
    """

    speed: float = 1.0
    started: float = field(default_factory=time.monotonic)
    epoch: float = field(default_factory=time.time)

    def now(self) -> float:
        """Simulated seconds since the start."""
        return (time.monotonic() - self.started) * self.speed

    def at(self, moment: float) -> float:
        """Simulated seconds from the start to a moment in seconds since 1970."""
        return (moment - self.epoch) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait for simulated seconds."""
        await asyncio.sleep(seconds / self.speed)
