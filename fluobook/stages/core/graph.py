"""Which actions of a plan may begin, which are at work, and how they end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fluobook.stages.core.plan import Action, Plan
    from fluobook.stages.core.progress import Progress

LOOK = 0.5
"""Seconds after which the table is looked at again although nothing finished."""


class Graph:
    """Which actions of a plan wait, run, are done or have failed."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.failures: dict[str, Exception] = {}
        self._known = {action.id for action in plan.actions}
        self._waiting = {action.id: action for action in plan.actions}
        self._running: dict[Future[None], Action] = {}
        self._done: set[str] = set()
        self._lost: set[str] = set()
        self._progress = progress
        self._news = threading.Event()

    @property
    def unfinished(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    def at_work(self) -> list[str]:
        """The ids of what runs."""
        return [action.id for action in self._running.values()]

    def startable(self) -> list[Action]:
        """What waits for nothing any more; what waits for something that failed is given up."""
        for action in [one for one in self._waiting.values() if set(one.needs) & self._lost]:
            del self._waiting[action.id]
            self._lost.add(action.id)
            self._progress.set(action, "skipped", "what it needs failed")
        return [one for one in self._waiting.values() if set(one.needs) & self._known <= self._done]

    def started(self, action: Action, future: Future[None]) -> None:
        """An action is at work."""
        del self._waiting[action.id]
        self._running[future] = action
        future.add_done_callback(lambda _: self.look())

    def look(self) -> None:
        """Something finished, or a place became free: there may be something to start."""
        self._news.set()

    def collect(self) -> None:
        """Wait a moment for news, and note how what has finished ended."""
        self._news.wait(LOOK)
        self._news.clear()
        for future in [one for one in self._running if one.done()]:
            self._ended(self._running.pop(future), future.exception())
        self._progress.changed()

    def _ended(self, action: Action, error: BaseException | None) -> None:
        if error is None:
            self._done.add(action.id)
            self._progress.set(action, "done")
        elif isinstance(error, Exception):
            self.failures[action.id] = error
            self._lost.add(action.id)
            self._progress.set(action, "failed", str(error))
        else:
            raise error
