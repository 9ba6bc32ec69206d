"""Runs the actions of a plan as a graph: each starts as soon as what it needs is done.

So a stage takes as long as its longest chain, not as the sum. How many run at once is bounded for each foreign system.
What depends on a failed action is not started; everything else goes on to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.stages.core.graph import Graph
from fluobook.stages.core.places import Limit, Place
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from fluobook.journal.journal import Journal
    from fluobook.stages.core.progress import Progress

DEFAULT_WIDTH = 8
"""How many actions run at once against one foreign system, where nothing else is said."""

POOL = 512
"""Threads at most; a waiting action costs a thread and nothing else."""


@dataclass(frozen=True)
class Reporter:
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


Perform = Callable[[Action, Reporter], Mapping[str, Any] | None]
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
        graph = Graph(plan, progress)
        limits = self._limits(plan, graph.look)
        with ThreadPoolExecutor(max_workers=POOL, thread_name_prefix=plan.stage) as pool:
            try:
                while graph.unfinished:
                    for action in graph.startable():
                        if place := limits[action.system].take():
                            graph.started(action, pool.submit(self._one, plan.stage, action, progress, place))
                    graph.collect()
            except BaseException:
                self._journal.write("interrupted", stage=plan.stage, running=graph.at_work())
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if graph.failures:
            raise _failure(plan, graph.failures)

    def _limits(self, plan: Plan, freed: Callable[[], None]) -> dict[str, Limit]:
        systems = {action.system for action in plan.actions}
        return {one: Limit(self._widths.get(one.split(":")[0], DEFAULT_WIDTH), freed) for one in systems}

    def _one(self, stage: str, action: Action, progress: Progress, place: Place) -> None:
        try:
            self._check()
            progress.set(action, "running")
            self._note("intent", stage, action, verb=action.verb, object=action.object, reason=action.reason)
            evidence = self._perform(action, Reporter(action, stage, self._journal, progress, self._check, place.leave))
            self._note("outcome", stage, action, result="done", evidence=dict(evidence or {}))
        except Exception as error:
            told = present(error).text() if isinstance(error, FluobookError) else repr(error)
            self._note("outcome", stage, action, result="failed", error=told)
            raise
        finally:
            place.leave()

    def _note(self, event: str, stage: str, action: Action, **fields: Any) -> None:
        self._journal.write(event, stage=stage, action=action.id, **fields)


def _failure(plan: Plan, failures: Mapping[str, Exception]) -> Exception:
    first, *others = failures.items()
    error = first[1]
    if isinstance(error, FluobookError):
        tail = f" (and {len(others)} more failed: {', '.join(name for name, _ in others)})" if others else ""
        error.message = f"{plan.stage}, {first[0]}: {error.message}{tail}"
        error.args = (error.message,)
    return error
