"""Stage 9, observe: nodes, certificate requests, Applications and flows as they are now; nothing is ever changed.

What a person watches in JupyterLab follows the cluster and is drawn at most twice a second, however much happens. What
nobody watches is read once and shown once, without anything that depends on time, chance or ports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import Refused
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage
from fluobook.stages.observe.flows import watch_flows
from fluobook.stages.observe.verify import verify
from fluobook.stages.observe.watch import SECONDS, watch_applications, watch_csrs, watch_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Platform
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.site import Site

NAME = "observe"


def observe(_site: Site) -> None:
    """Nothing: what is to be seen belongs to the tables and the checks."""


def plan(platform: Platform, _seen: None) -> Plan:
    """The empty plan."""
    return Plan(NAME, (), 0, platform.digest_data())


def perform(_site: Site, action: Action, _tell: Tell) -> Mapping[str, object] | None:
    """Never called: no plan of this stage has an action.

    Raises:
        Refused: always.
    """
    raise Refused(f"this stage changes nothing, so it will not {action.verb} {action.object}")


STAGE = Stage(9, NAME, "Watch the platform", observe, plan, perform, verify)

__all__ = ["SECONDS", "STAGE", "watch_applications", "watch_csrs", "watch_flows", "watch_nodes"]
