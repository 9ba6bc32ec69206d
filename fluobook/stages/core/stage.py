"""A stage: a name, four functions, and the clients that they use.

`observe` only reads. `plan` is pure over the observation. `perform` performs one action. `verify` makes the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fluobook.context import Client, RunContext
from fluobook.errors import CheckFailed, Refused
from fluobook.params import Platform
from fluobook.stages.core.check import Check
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action, Plan


@dataclass(frozen=True)
class Stage:
    """One step of the bring-up.

    Args:
        number: its position, 0 for the preflight.
        name: its name in plans, approvals and commands.
        title: what it does, for people.
        observe: reads the live systems.
        plan: the actions that lead from the observation to the platform; pure.
        perform: performs one action and returns its evidence.
        verify: the checks, given a context and an observation made after the work.
        uses: the clients that `observe`, `perform` and `verify` may use; their context refuses the others.
        widths: how many actions run at once, by system.
        failure: what failed checks raise, where it is not `CheckFailed`.
        suffix: tells it apart from the stage before, which has the same number.
    """

    number: int
    name: str
    title: str
    observe: Callable[[RunContext], Any]
    plan: Callable[[Platform, Any], Plan]
    perform: Callable[[RunContext, Action, Reporter], Mapping[str, Any] | None]
    verify: Callable[[RunContext, Any], Sequence[Check]]
    uses: tuple[Client, ...] = ()
    widths: Mapping[str, int] | None = None
    suffix: str = ""
    failure: type[CheckFailed] = CheckFailed

    @property
    def label(self) -> str:
        """Its number as people write it, such as 0b."""
        return f"{self.number}{self.suffix}"

    @property
    def notebook(self) -> str:
        """The file name of its notebook."""
        return f"{self.number:02d}{self.suffix}_{self.name.replace('-', '_')}.ipynb"


def read_only_stage(
    number: int,
    name: str,
    title: str,
    verify: Callable[[RunContext], Sequence[Check]],
    *,
    uses: tuple[Client, ...],
    notes: Callable[[Platform], tuple[str, ...]] = lambda _platform: (),
) -> Stage:
    """A stage that only checks: its plan has no actions, only `notes`."""

    def plan(platform: Platform, _observation: None) -> Plan:
        return Plan(name, (), 0, platform.digest_data(), notes=notes(platform))

    def perform(_context: RunContext, action: Action, _report: Reporter) -> NoReturn:
        raise Refused(f"stage {name} changes nothing: it does not {action.verb} {action.object}")

    return Stage(
        number, name, title, lambda _context: None, plan, perform, lambda context, _: verify(context), uses=uses
    )
