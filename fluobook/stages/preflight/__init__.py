"""Stage 0, preflight: everything that the next stages stand on, looked at before any of them acts.

It only reads: its plan is always empty, and `verify` is where the looks are taken, side by side. Every look is taken to
its end even when another one failed, so that one run tells everything that has to be put right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import Refused
from fluobook.stages.core.look import Look, take
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage
from fluobook.stages.preflight import factory, keys, machine, proxmox, sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.params import Platform
    from fluobook.stages.core.check import Check
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.site import Site

NAME = "preflight"

LOOKS: tuple[Look, ...] = (*machine.LOOKS, *keys.LOOKS, *proxmox.LOOKS, *factory.LOOKS, *sources.LOOKS)
"""All looks, in the order in which their checks are shown."""


def observe(_site: Site) -> None:
    """Nothing: what is to be seen belongs to the checks."""


def plan(platform: Platform, _seen: None) -> Plan:
    """The empty plan."""
    return Plan(NAME, (), 0, platform.digest_data())


def perform(_site: Site, action: Action, _tell: Tell) -> Mapping[str, object] | None:
    """Never called: no plan of this stage has an action.

    Raises:
        Refused: always.
    """
    raise Refused(f"the preflight changes nothing, so it will not {action.verb} {action.object}")


def verify(site: Site, _seen: None) -> Sequence[Check]:
    """Take every look."""
    return take(site, LOOKS)


STAGE = Stage(0, NAME, "Look at everything before acting", observe, plan, perform, verify)
