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

POOL = 64
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

    def __call__(self, word: str) -> None:
        """Show a word in the live table."""
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
    """

    def __init__(self, perform: Perform, journal: Journal, *, widths: Mapping[str, int] | None = None) -> None:
        self._perform = perform
        self._journal = journal
        self._widths = dict(widths or {})
        self._stopped = threading.Event()

    def run(self, plan: Plan, progress: Progress) -> None:
        """Do all actions; returns when each is done.

        Raises:
            FluobookError: of the actions that failed, the first one; the others are named in its detail.
        """
        waiting = {action.id: action for action in plan.actions}
        limits = self._limits(plan)
        failures: dict[str, Exception] = {}
        done: set[str] = set()
        running: dict[Future[None], Action] = {}
        with ThreadPoolExecutor(max_workers=POOL, thread_name_prefix=plan.stage) as pool:
            try:
                while waiting or running:
                    self._start(plan, waiting, running, done, failures, limits, pool, progress)
                    self._collect(running, done, failures, progress)
            except BaseException:
                self._journal.write("interrupted", stage=plan.stage, running=[action.id for action in running.values()])
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failures:
            raise _failure(plan, failures)

    def _limits(self, plan: Plan) -> dict[str, threading.Semaphore]:
        systems = {action.system for action in plan.actions}
        return {
            system: threading.Semaphore(self._widths.get(system.split(":")[0], DEFAULT_WIDTH)) for system in systems
        }

    def _start(
        self,
        plan: Plan,
        waiting: dict[str, Action],
        running: dict[Future[None], Action],
        done: set[str],
        failures: dict[str, Exception],
        limits: Mapping[str, threading.Semaphore],
        pool: ThreadPoolExecutor,
        progress: Progress,
    ) -> None:
        known = {action.id for action in plan.actions}
        for action in list(waiting.values()):
            needs = set(action.needs) & known
            if needs & (set(failures) | self._skipped(progress)):
                progress.set(waiting.pop(action.id), "skipped", "what it needs failed")
            elif needs <= done and limits[action.system].acquire(blocking=False):
                del waiting[action.id]
                running[pool.submit(self._one, plan.stage, action, progress, limits[action.system])] = action

    @staticmethod
    def _skipped(progress: Progress) -> set[str]:
        return {name for name, state in progress.state.items() if state == "skipped"}

    @staticmethod
    def _collect(
        running: dict[Future[None], Action], done: set[str], failures: dict[str, Exception], progress: Progress
    ) -> None:
        finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in finished:
            action = running.pop(future)
            error = future.exception()
            if error is None:
                done.add(action.id)
                progress.set(action, "done")
            elif isinstance(error, Exception):
                failures[action.id] = error
                progress.set(action, "failed", str(error))
            else:
                raise error
        progress.changed()

    def _one(self, stage: str, action: Action, progress: Progress, limit: threading.Semaphore) -> None:
        try:
            progress.set(action, "running")
            self._journal.write(
                "intent", stage=stage, action=action.id, verb=action.verb, object=action.object, reason=action.reason
            )
            evidence = self._perform(action, Tell(action, stage, self._journal, progress))
            self._journal.write("outcome", stage=stage, action=action.id, result="done", evidence=dict(evidence or {}))
        except Exception as error:
            told = error.diagnostics() if isinstance(error, FluobookError) else repr(error)
            self._journal.write("outcome", stage=stage, action=action.id, result="failed", error=told)
            raise
        finally:
            limit.release()


def _failure(plan: Plan, failures: Mapping[str, Exception]) -> Exception:
    first, *others = failures.items()
    error = first[1]
    if isinstance(error, FluobookError):
        tail = f" (and {len(others)} more failed: {', '.join(name for name, _ in others)})" if others else ""
        error.message = f"{plan.stage}, {first[0]}: {error.message}{tail}"
        error.args = (error.message,)
    return error
