"""From what of Argo CD is there to all of it running. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from fluobook.params import Platform
    from fluobook.stages.install_argocd.observe import Observation

NAME = "install-argocd"
NAMED = 3
"""How many objects a reason names before it only counts."""


def plan(platform: Platform, seen: Observation) -> Plan:
    """Install what is missing, and wait for what is not ready."""
    if seen.missing:
        action = _install(seen, "not there")
        return Plan(NAME, (action,), 0, platform.digest_data(), seen.missing.stage, (seen.missing.reason,))
    differing = [one for one in seen.compared if one.differs]
    installs = (_install(seen, _reason(seen)),) if differing else ()
    awaited = {title: why for title, why in seen.workloads.items() if why or differing}
    actions = (*installs, *(_await(title, why, needs=installs) for title, why in awaited.items()))
    kept = len(seen.compared) - len(differing) if seen.compared else len(seen.workloads)
    return Plan(NAME, actions, kept, platform.digest_data())


def _reason(seen: Observation) -> str:
    differing = [one for one in seen.compared if one.differs]
    if all(one.missing for one in seen.compared):
        return "not there"
    named = ", ".join(one.title for one in differing[:NAMED]) + (", …" if len(differing) > NAMED else "")
    return f"{len(differing)} of {len(seen.compared)} objects are missing or differ: {named}"


def _install(seen: Observation, reason: str) -> Action:
    source = seen.chart.source
    return Action(
        "install",
        "install",
        f"chart {seen.chart.title}",
        f"{source.release} in namespace {source.namespace}, rendered as Argo CD will; no Helm release",
        reason,
        system="kubernetes",
        data={"chart": source.chart, "version": source.version, "content": seen.chart.digest},
    )


def _await(title: str, why: str, *, needs: tuple[Action, ...]) -> Action:
    kind, name = title.split(" ", 1)
    return Action(
        f"await {title}",
        "await",
        title,
        "ready",
        why or "is about to change",
        tuple(action.id for action in needs),
        "kubernetes",
        {"kind": kind, "name": name},
    )
