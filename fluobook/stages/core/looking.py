"""Stages that only look: nothing to observe for a plan, a plan that is always empty, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fluobook.errors import Refused
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.core.check import Check
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action


def looking_stage(number: int, name: str, title: str, verify: Callable[[RunContext], Sequence[Check]]) -> Stage:
    """A stage that changes nothing, with its checks."""

    def plan(platform: Platform, _seen: None) -> Plan:
        return Plan(name, (), 0, platform.digest_data())

    def perform(_context: RunContext, action: Action, _report: Reporter) -> NoReturn:
        raise Refused(f"stage {name} changes nothing, so it will not {action.verb} {action.object}")

    return Stage(number, name, title, lambda _context: None, plan, perform, lambda context, _seen: verify(context))
