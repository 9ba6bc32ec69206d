"""From the Applications as they are to all of them being well, wave after wave. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.root_application.observe import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.gitops import Application
    from fluobook.params import Platform
    from fluobook.stages.root_application.observe import Observation

NAME = "root-application"
APPLY = f"apply {ROOT}"
LONGEST = 160
"""Characters of Argo CD's words that a reason repeats."""


def plan(platform: Platform, seen: Observation) -> Plan:
    """Apply the root Application if it differs, and wait for what is not well: each wave after the one before."""
    first = () if seen.root_is_right else (_apply(platform, seen),)
    actions: list[Action] = [*first]
    before = tuple(action.id for action in first)
    for wave in sorted({one.wave for one in seen.applications}):
        waiting = [one for one in seen.applications if one.wave == wave and not seen.done(one.name)]
        awaits = [_await(one, seen, before) for one in waiting]
        actions += awaits
        before = tuple(action.id for action in awaits) or before
    if actions or not seen.done(ROOT):
        actions.append(_await_root(seen, tuple(action.id for action in first)))
    kept = len(seen.applications) + 1 - sum(action.verb == "await" for action in actions)
    waits, notes = (seen.missing.stage, (seen.missing.reason,)) if seen.missing else ("", ())
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits, notes)


def _apply(platform: Platform, seen: Observation) -> Action:
    told = platform.gitops
    return Action(
        APPLY,
        "apply",
        f"application {ROOT}",
        f"{told.path} at {told.revision} of {told.repository}",
        "differs from the params" if ROOT in seen.states else "not there",
        system="kubernetes",
        data={"repository": told.repository, "revision": told.revision, "path": told.path, "content": seen.digest},
    )


def _await(one: Application, seen: Observation, needs: Sequence[str]) -> Action:
    return Action(
        f"await {one.name}",
        "await",
        f"application {one.name}",
        f"wave {one.wave}, {one.source}",
        _reason(one.name, seen),
        tuple(needs),
        "argocd",
        {"application": one.name, "wave": one.wave},
    )


def _await_root(seen: Observation, needs: tuple[str, ...]) -> Action:
    """Argo CD's own word that all is done. It is listened to from the beginning: it needs no other wait."""
    detail = f"all {len(seen.applications)} applications of the tree"
    data = {"application": ROOT}
    return Action(f"await {ROOT}", "await", f"application {ROOT}", detail, _reason(ROOT, seen), needs, "argocd", data)


def _reason(name: str, seen: Observation) -> str:
    state = seen.states.get(name)
    if state is None:
        return "not there yet"
    if state.failed:
        told = f"its last sync failed, it is asked to try again: {state.message}"
        return told if len(told) <= LONGEST else told[:LONGEST] + "…"
    if name in seen.behind:
        return "not at the revision that was pushed, it is asked to look again"
    if state.well:
        return "waits for the others"
    return ", ".join(filter(None, (state.sync, state.health, state.operation))) or "not looked at yet"
