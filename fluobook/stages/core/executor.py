"""Runs the actions of a plan as a graph: each starts as soon as the actions it needs are done.

A stage takes as long as its longest chain of actions. The number of actions that run at once is limited for each
system. Actions that need a failed action are skipped; all others run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, TypeVar

from fluobook.clients.proxmox.session import WIDTH
from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.journal.journal import Journal
from fluobook.stages.core.plan import Action, Plan
from fluobook.waiting import on_wait

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_WIDTH = 8
"""How many actions run at once against one system, where the stage sets no other limit."""

POOL = 512
"""Threads at most; a waiting action costs no more than a thread."""

REFRESH = 0.5
"""Seconds after which the table is refreshed although nothing has finished."""


REPORTS = 20
"""Messages of an action that are kept."""


def in_parallel(work: Callable[[T], R], items: Iterable[T], *, width: int = WIDTH) -> list[R]:
    """Do the work for all items at once, at most `width` at a time.

    Returns:
        The results in the order of the items.
    """
    with ThreadPoolExecutor(width) as pool:
        return list(pool.map(work, items))


@dataclass
class ActionProgress:
    """Where one action is.

    `state` is waiting, running, done, failed or skipped; `message` is its last message. `started`, `ended` and `limit`,
    the end of its current wait, are seconds of `time.monotonic`. `log` reads the log of the task that does the work.
    """

    state: str = "waiting"
    message: str = ""
    started: float | None = None
    ended: float | None = None
    limit: float | None = None
    log: Callable[[], Sequence[str]] | None = None
    reports: deque[str] = field(default_factory=lambda: deque(maxlen=REPORTS))

    def tail(self) -> Sequence[str]:
        """The last lines of the task's log; of an action without a task, its last messages."""
        if self.log is None:
            return tuple(self.reports)
        try:
            return self.log()
        except FluobookError as error:
            return (*self.reports, f"the log cannot be read: {error.message}")


@dataclass
class Progress:
    """Where each action is while a plan is applied, for the live table; `changed` is called after each change."""

    actions: tuple[Action, ...]
    changed: Callable[[], None] = lambda: None
    _of: dict[str, ActionProgress] = field(default_factory=dict)

    def set(self, action: Action, state: str, message: str = "") -> None:
        """Set the state of an action."""
        progress = self.of(action)
        if state == "running" and progress.state != "running":
            progress.started = time.monotonic()
        if state in ("done", "failed"):
            progress.ended, progress.limit = time.monotonic(), None
        progress.state, progress.message = state, message
        if message:
            progress.reports.append(message)
        self.changed()

    def of(self, action: Action) -> ActionProgress:
        """Where an action is."""
        return self._of.setdefault(action.id, ActionProgress())

    def tails(self) -> dict[str, Callable[[], Sequence[str]]]:
        """What reads the tail of the log of each running action, by its id."""
        return {name: progress.tail for name, progress in self._of.copy().items() if progress.state == "running"}


class Slot:
    """The right to use a system; releasing it a second time does nothing. `freed` is set when it becomes free."""

    def __init__(self, system: threading.Semaphore, freed: threading.Event) -> None:
        self._system: threading.Semaphore | None = system
        self._freed = freed

    def release(self) -> None:
        """Let another action use the system."""
        system, self._system = self._system, None
        if system is not None:
            system.release()
            self._freed.set()


@dataclass(frozen=True)
class Reporter:
    """What a running action reports: messages for the table, evidence for the journal.

    Args:
        check: raises when the run is cancelled.
        release_slot: lets another action use the system, once this action only waits.
    """

    action: Action
    stage: str
    journal: Journal
    progress: Progress
    check: Callable[[], None] = lambda: None
    release_slot: Callable[[], None] = lambda: None

    def __call__(self, message: str) -> None:
        """Show a message in the live table, unless the run is cancelled."""
        self.check()
        self.progress.set(self.action, "running", message)

    def evidence(self, **fields: Any) -> None:
        """Write evidence (a task id, a gRPC code, a resource version) to the journal now, before going on."""
        self.journal.write("evidence", stage=self.stage, action=self.action.id, **fields)

    def waits(self, what: str, seconds: float) -> None:
        """Note that the action waits for something, and for how many seconds at most."""
        progress = self.progress.of(self.action)
        progress.limit = time.monotonic() + seconds
        progress.reports.append(f"waiting for {what}")
        self.journal.write("wait", stage=self.stage, action=self.action.id, what=what, seconds=seconds)

    def failed(self) -> list[Action]:
        """The actions of this plan that have failed so far."""
        return [action for action in self.progress.actions if self.progress.of(action).state == "failed"]

    def follow(self, log: Callable[[], Sequence[str]]) -> None:
        """Let a person read the log of the task that does the work now."""
        self.progress.of(self.action).log = log


Perform = Callable[[Action, Reporter], Mapping[str, Any] | None]
"""Performs one action and returns its evidence."""


class _Schedule:
    """The actions of a plan that are ready, running, failed or skipped."""

    def __init__(self, plan: Plan, progress: Progress, widths: Mapping[str, int]) -> None:
        self.running: dict[Future[None], Action] = {}
        self.failures: dict[str, Exception] = {}
        self._actions = {action.id: action for action in plan.actions}
        needs = {a.id: [need for need in a.needs if need in self._actions] for a in plan.actions}
        self.graph = TopologicalSorter(needs)
        self.graph.prepare()
        self._progress = progress
        self._news = threading.Event()
        systems = {action.system for action in plan.actions}
        self._systems = {name: threading.Semaphore(widths.get(name.split(":")[0], DEFAULT_WIDTH)) for name in systems}
        self._ready: list[Action] = []
        self._skipped: set[str] = set()

    def startable(self) -> Iterator[tuple[Action, Slot]]:
        """The actions that can start now, each with a slot on its system; those that need a failed one are skipped."""
        while names := self.graph.get_ready():
            for action in (self._actions[name] for name in names):
                if self._skipped.union(self.failures).isdisjoint(action.needs):
                    self._ready.append(action)
                else:
                    self._skipped.add(action.id)
                    self._progress.set(action, "skipped", "an action that it needs failed")
                    self.graph.done(action.id)
        for action in self._ready.copy():
            system = self._systems[action.system]
            if system.acquire(blocking=False):
                self._ready.remove(action)
                yield action, Slot(system, self._news)

    def started(self, action: Action, future: Future[None]) -> None:
        """Note that an action runs."""
        self.running[future] = action
        future.add_done_callback(lambda _: self._news.set())

    def collect(self) -> None:
        """Wait until an action ends or a slot becomes free, and note how the actions ended."""
        if self.running:
            self._news.wait(REFRESH)
            self._news.clear()
        for future in [future for future in self.running if future.done()]:
            action = self.running.pop(future)
            try:
                future.result()
            except Exception as error:  # noqa: BLE001 (raised when all other actions have ended)
                self.failures[action.id] = error
                self._progress.set(action, "failed", str(error))
            else:
                self._progress.set(action, "done")
            self.graph.done(action.id)
        self._progress.changed()


@dataclass(frozen=True)
class Executor:
    """Applies one plan.

    Args:
        perform: performs one action.
        journal: receives the intent before and the outcome after each action.
        widths: how many actions run at once, by system.
        check: raises when the run is cancelled.
        phase: how commands name the platform, for what the journal says of an error.
    """

    perform: Perform
    journal: Journal
    widths: Mapping[str, int] | None = None
    check: Callable[[], None] = lambda: None
    phase: str = ""

    def run(self, plan: Plan, progress: Progress) -> None:
        """Perform all actions; returns when each is done.

        Raises:
            CycleError: actions need each other.
            FluobookError: of the actions that failed, the first in the plan; its message names the others.
        """
        schedule = _Schedule(plan, progress, self.widths or {})
        with ThreadPoolExecutor(max_workers=POOL, thread_name_prefix=plan.stage) as pool:
            try:
                while schedule.graph.is_active():
                    for action, slot in schedule.startable():
                        schedule.started(action, pool.submit(self._run_action, plan.stage, action, progress, slot))
                    schedule.collect()
            except BaseException:
                running = [action.id for action in schedule.running.values()]
                self.journal.write("interrupted", stage=plan.stage, running=running)
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if schedule.failures:
            raise _failure(plan, schedule.failures)

    def _run_action(self, stage: str, action: Action, progress: Progress, slot: Slot) -> None:
        try:
            self.check()
            progress.set(action, "running")
            named = {name: getattr(action, name) for name in ("verb", "object", "detail", "reason", "needs")}
            self._note("intent", stage, action, **named)
            report = Reporter(action, stage, self.journal, progress, self.check, slot.release)
            on_wait.set(report.waits)
            evidence = self.perform(action, report)
            self._note("outcome", stage, action, result="done", evidence=dict(evidence or {}))
        except Exception as error:
            details = present(error, phase=self.phase).text() if isinstance(error, FluobookError) else repr(error)
            self._note("outcome", stage, action, result="failed", error=details)
            raise
        finally:
            on_wait.set(None)
            slot.release()

    def _note(self, event: str, stage: str, action: Action, **fields: Any) -> None:
        self.journal.write(event, stage=stage, action=action.id, **fields)


def _failure(plan: Plan, failures: Mapping[str, Exception]) -> Exception:
    name, *others = [action.id for action in plan.actions if action.id in failures]
    error = failures[name]
    if isinstance(error, FluobookError):
        tail = f" (and {len(others)} more failed: {', '.join(others)})" if others else ""
        error.message = f"{plan.stage}, {name}: {error.message}{tail}"
        error.args = (error.message,)
    return error
