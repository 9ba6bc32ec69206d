"""What a stage is: four functions and a name.

`observe` only reads. `plan` and, where it can, `verify` are pure over what was observed. `perform` does one action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.core.check import Check
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action, Plan


@dataclass(frozen=True)
class Stage:
    """One step of the bring-up.

    Args:
        number: its place, 0 for the preflight.
        name: what plans, approvals and the command line call it.
        title: what it does, for people.
        observe: reads the live systems.
        plan: what leads from the observation to the platform; pure.
        perform: does one action and returns its evidence.
        verify: the checks, given a context and an observation made after the work.
        widths: how many actions run at once, by foreign system.
    """

    number: int
    name: str
    title: str
    observe: Callable[[RunContext], Any]
    plan: Callable[[Platform, Any], Plan]
    perform: Callable[[RunContext, Action, Reporter], Mapping[str, Any] | None]
    verify: Callable[[RunContext, Any], Sequence[Check]]
    widths: Mapping[str, int] | None = None
