"""Stages that only look: nothing to observe for a plan, a plan that is always empty, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fluobook.errors import Refused
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluobook.params import Platform
    from fluobook.stages.core.check import Check
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.plan import Action
    from fluobook.stages.core.site import Site


def looking_stage(number: int, name: str, title: str, verify: Callable[[Site], Sequence[Check]]) -> Stage:
    """A stage that changes nothing, with its checks."""

    def plan(platform: Platform, _seen: None) -> Plan:
        return Plan(name, (), 0, platform.digest_data())

    def perform(_site: Site, action: Action, _tell: Tell) -> NoReturn:
        raise Refused(f"stage {name} changes nothing, so it will not {action.verb} {action.object}")

    return Stage(number, name, title, lambda _site: None, plan, perform, lambda site, _seen: verify(site))
