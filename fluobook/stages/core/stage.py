"""What a stage is: four functions and a name.

`observe` only reads. `plan` and, where it can, `verify` are pure over what was observed. `perform` does one action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluobook.params import Platform
    from fluobook.stages.core.check import Check
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.plan import Action, Plan
    from fluobook.stages.core.site import Site


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
        verify: the checks, given a site and an observation made after the work.
        widths: how many actions run at once, by foreign system.
    """

    number: int
    name: str
    title: str
    observe: Callable[[Site], Any]
    plan: Callable[[Platform, Any], Plan]
    perform: Callable[[Site, Action, Tell], Mapping[str, Any] | None]
    verify: Callable[[Site, Any], Sequence[Check]]
    widths: Mapping[str, int] | None = None
