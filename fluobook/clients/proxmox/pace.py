"""How often to ask whether a task has ended: often enough to lose no time, and no oftener.

A look that comes too late delays what waits for it; how much that matters is a question of how long all has taken so
far. And once tasks of a type have ended, it is known when it is worth asking for the next one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

SHORTEST, LONGEST = 0.1, 1.0
"""Seconds between two looks, at least and at most."""

EARLY = 0.9
"""The part of its usual time after which a task is looked at for the first time."""


def poll_interval(waited: float, since: float = 0.0) -> float:
    """Seconds until something of unknown length is asked again.

    Args:
        waited: seconds waited for it so far: from 0.1 the interval grows with it to 0.5.
        since: seconds since the first wait of all; a fiftieth of them is no loss.
    """
    return min(LONGEST, max(min(0.5, SHORTEST + waited / 10), since / 50))


@dataclass
class Pace:
    """What one client has learnt of its tasks' durations; thread-safe."""

    begun: float = field(default_factory=time.monotonic)
    _ended: dict[str, tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, kind: str, seconds: float) -> None:
        """A task of that kind has ended after so many seconds."""
        with self._lock:
            count, total = self._ended.get(kind, (0, 0.0))
            self._ended[kind] = (count + 1, total + seconds)

    def pause(self, kind: str, waited: float) -> float:
        """Seconds until a task of that kind is asked again after `waited` seconds."""
        if kind not in self._ended:
            return poll_interval(waited, time.monotonic() - self.begun)
        count, total = self._ended[kind]
        usual = total / count
        return max(SHORTEST, EARLY * usual - waited, max(usual, waited) / 16)
