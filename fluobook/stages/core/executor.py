"""Runs the actions of a plan as a graph: each starts as soon as what it needs is done.

So a stage takes as long as its longest chain, not as the sum. How many run at once is bounded for each foreign system.
What depends on a failed action is not started; everything else goes on to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from fluobook.record.journal import Journal

DEFAULT_WIDTH = 8
"""How many actions run at once against one foreign system, where nothing else is said."""

LOOK = 0.5
"""Seconds after which the table is looked at again although nothing finished."""

POOL = 512
"""Threads at most; a waiting action costs a thread and nothing else."""


@dataclass
class Progress:
    """What is known of each action while a plan is applied; the live table reads it.

    `state` is waiting, running, done, failed or skipped; `word` is the last thing the action told.
    """

    actions: tuple[Action, ...]
    state: dict[str, str] = field(default_factory=dict)
    word: dict[str, str] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None

    def set(self, action: Action, state: str, word: str = "") -> None:
        """Note a new state and tell whoever shows it."""
        self.state[action.id] = state
        self.word[action.id] = word
        self.changed()

    def of(self, action: Action) -> tuple[str, str]:
        """State and last word of an action."""
        return self.state.get(action.id, "waiting"), self.word.get(action.id, "")


@dataclass(frozen=True)
class Tell:
    """What an action says while it is at work: words for the table, evidence for the journal."""

    action: Action
    stage: str
    journal: Journal
    progress: Progress
    check: Callable[[], None] = lambda: None
    """Raises when the work is to be broken off."""
    leave: Callable[[], None] = lambda: None
    """Says that the foreign system has done its part: what follows is waiting, and somebody else may have the place."""

    def __call__(self, word: str) -> None:
        """Show a word in the live table, if the work is to go on."""
        self.check()
        self.progress.set(self.action, "running", word)

    def evidence(self, **fields: Any) -> None:
        """Put evidence (a task id, a gRPC code, a resource version) into the journal now, before going on."""
        self.journal.write("evidence", stage=self.stage, action=self.action.id, **fields)


Perform = Callable[[Action, Tell], Mapping[str, Any] | None]
"""Does one action and returns its evidence."""


class Executor:
    """Applies one plan.

    Args:
        perform: does one action.
        journal: gets intent before and outcome after each action.
        widths: how many actions run at once, by foreign system.
        check: raises when the work is to be broken off.
    """

    def __init__(
        self,
        perform: Perform,
        journal: Journal,
        *,
        widths: Mapping[str, int] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._perform = perform
        self._check = check
        self._journal = journal
        self._widths = dict(widths or {})

    def run(self, plan: Plan, progress: Progress) -> None:
        """Do all actions; returns when each is done.

        Raises:
            FluobookError: of the actions that failed, the first one; the others are named in its message.
        """
        graph = _Graph(plan, progress)
        limits = self._limits(plan)
        with ThreadPoolExecutor(max_workers=POOL, thread_name_prefix=plan.stage) as pool:
            try:
                while graph.unfinished:
                    for action in graph.startable():
                        if limits[action.system].acquire(blocking=False):
                            limit = limits[action.system]
                            graph.started(action, pool.submit(self._one, plan.stage, action, progress, limit))
                    graph.collect()
            except BaseException:
                self._journal.write("interrupted", stage=plan.stage, running=graph.at_work())
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if graph.failures:
            raise _failure(plan, graph.failures)

    def _limits(self, plan: Plan) -> dict[str, threading.Semaphore]:
        systems = {action.system for action in plan.actions}
        return {one: threading.Semaphore(self._widths.get(one.split(":")[0], DEFAULT_WIDTH)) for one in systems}

    def _one(self, stage: str, action: Action, progress: Progress, limit: threading.Semaphore) -> None:
        place = _Place(limit)
        try:
            self._check()
            progress.set(action, "running")
            self._note("intent", stage, action, verb=action.verb, object=action.object, reason=action.reason)
            evidence = self._perform(action, Tell(action, stage, self._journal, progress, self._check, place.leave))
            self._note("outcome", stage, action, result="done", evidence=dict(evidence or {}))
        except Exception as error:
            told = error.diagnostics() if isinstance(error, FluobookError) else repr(error)
            self._note("outcome", stage, action, result="failed", error=told)
            raise
        finally:
            place.leave()

    def _note(self, event: str, stage: str, action: Action, **fields: Any) -> None:
        self._journal.write(event, stage=stage, action=action.id, **fields)


class _Place:
    """One of the places that a foreign system's limit gives; given back once."""

    def __init__(self, limit: threading.Semaphore) -> None:
        self._limit: threading.Semaphore | None = limit

    def leave(self) -> None:
        """Give it back, if it has not been."""
        if self._limit is not None:
            self._limit.release()
            self._limit = None


class _Graph:
    """Which actions of a plan wait, run, are done or have failed."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.failures: dict[str, Exception] = {}
        self._known = {action.id for action in plan.actions}
        self._waiting = {action.id: action for action in plan.actions}
        self._running: dict[Future[None], Action] = {}
        self._done: set[str] = set()
        self._lost: set[str] = set()
        self._progress = progress

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

    def collect(self) -> None:
        """Wait a moment for something to finish, and note how it ended."""
        finished, _ = wait(self._running, timeout=LOOK, return_when=FIRST_COMPLETED)
        for future in finished:
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


def _failure(plan: Plan, failures: Mapping[str, Exception]) -> Exception:
    first, *others = failures.items()
    error = first[1]
    if isinstance(error, FluobookError):
        tail = f" (and {len(others)} more failed: {', '.join(name for name, _ in others)})" if others else ""
        error.message = f"{plan.stage}, {first[0]}: {error.message}{tail}"
        error.args = (error.message,)
    return error
