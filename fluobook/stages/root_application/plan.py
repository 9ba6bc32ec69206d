"""What is observed, the actions that lead to healthy Applications, wave after wave, and the checks. Pure but for one.

The check of how Argo CD is reached reads its endpoints.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.gitops import Application
    from fluobook.params import Platform
    from fluobook.stages.root_application.state import State

    Obj = dict[str, Any]

NAME = "root-application"
LONGEST = 160
"""Characters of Argo CD's message that a reason repeats."""
SERVER, PORT = "argocd-server", 8080
LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Observation:
    """What exists.

    Args:
        applications: those of the tree, in the order of their waves.
        digest: a short hash of the root Application as the platform wants it, without mirrors.
        missing: the earlier stage that has to run first.
        root_is_up_to_date: whether the root Application exists as the platform wants it.
        states: every live Application by name.
        behind: those of our repository that are not at the pushed revision.
        objects: the live Applications themselves.
    """

    applications: Sequence[Application]
    digest: str
    missing: Missing | None = None
    root_is_up_to_date: bool = False
    states: Mapping[str, State] = field(default_factory=dict)
    behind: frozenset[str] = frozenset()
    objects: Mapping[str, Obj] = field(default_factory=dict, repr=False)

    def done(self, name: str) -> bool:
        """Whether an Application is healthy and at the pushed revision."""
        state = self.states.get(name)
        return state is not None and state.healthy and name not in self.behind


def plan(platform: Platform, observation: Observation) -> Plan:
    """Apply the root Application if it differs, and wait for what is not healthy: each wave after the one before."""
    settings, actions = platform.gitops, list[Action]()
    if not observation.root_is_up_to_date:
        content = {"repository": settings.repository, "revision": settings.revision, "path": settings.path}
        actions.append(
            Action(
                f"apply {ROOT}",
                "apply",
                f"application {ROOT}",
                f"{settings.path} at {settings.revision} of {settings.repository}",
                "differs from the params" if ROOT in observation.states else "does not exist",
                system="kubernetes",
                data={**content, "content": observation.digest},
            )
        )
    applied = needs = tuple(action.id for action in actions)
    for wave in sorted({app.wave for app in observation.applications}):
        waiting = [app for app in observation.applications if app.wave == wave and not observation.done(app.name)]
        waits = [_await(app.name, f"wave {wave}, {app.source}", observation, needs, {"wave": wave}) for app in waiting]
        actions += waits
        needs = tuple(action.id for action in waits) or needs
    if actions or not observation.done(ROOT):
        # The root reports the end of the whole sync. It is watched from the beginning, so it needs no other wait.
        detail = f"all {len(observation.applications)} applications of the tree"
        actions.append(_await(ROOT, detail, observation, applied, {}))
    kept = len(observation.applications) + 1 - sum(action.verb == "await" for action in actions)
    missing = observation.missing
    waits_for, notes = (missing.stage, (missing.reason,)) if missing else ("", ())
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits_for, notes)


def _await(name: str, detail: str, observation: Observation, needs: tuple[str, ...], data: Mapping[str, Any]) -> Action:
    reason = _reason(name, observation)
    data = {"application": name, **data}
    return Action(f"await {name}", "await", f"application {name}", detail, reason, needs, "argocd", data)


def _reason(name: str, observation: Observation) -> str:
    state = observation.states.get(name)
    if state is None:
        return "does not exist yet"
    if state.failed:
        reason = f"its last sync failed and is requested again: {state.message}"
        return reason if len(reason) <= LONGEST else reason[:LONGEST] + "…"
    if name in observation.behind:
        return "not at the pushed revision; a refresh is requested"
    if state.healthy:
        return "waits for the others"
    return ", ".join(filter(None, (state.sync, state.health, state.operation))) or "not compared yet"


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 8."""
    names, states = [ROOT, *(app.name for app in observation.applications)], observation.states
    unhealthy = [
        f"{name} ({states[name].summary() if name in states else 'does not exist'})"
        for name in names
        if name not in states or not states[name].healthy
    ]
    own_repo = states[ROOT].repo if ROOT in states else ""
    own = [name for name in names if name in states and states[name].repo == own_repo]
    again, settings = f"run stage {NAME} again", context.platform.gitops
    kube = api(context)
    return (
        Check(
            "the root Application is up to date with the params",
            observation.root_is_up_to_date,
            f"{settings.path} of {settings.revision}",
            again,
        ),
        Check(
            "every Application is Synced and Healthy, its operation Succeeded",
            not unhealthy,
            count(len(names), unhealthy),
            again,
        ),
        Check(
            "the Applications of our repository are at the pushed revision",
            bool(own) and not observation.behind,
            count(len(own), sorted(observation.behind)),
            again,
        ),
        *wave_checks(observation),
        *(() if isinstance(kube, Missing) else [_server_check(kube)]),
    )


def wave_checks(observation: Observation) -> Sequence[Check]:
    """Whether each wave began after the one before was deployed, by the history of the root's first deployment.

    Only Applications that this deployment created are considered. Argo CD keeps ten deployments; once the first one is
    gone, the check is left out.
    """
    history = _history(observation.objects.get(ROOT))
    if not history or history[0].get("id") != 0 or not history[0].get("deployStartedAt"):
        return ()
    began, ended = history[0]["deployStartedAt"], history[0]["deployedAt"]
    waves: dict[int, list[tuple[str, str]]] = {}
    for name, state in observation.states.items():
        created = observation.objects[name]["metadata"].get("creationTimestamp", "")
        deployments = _history(observation.objects[name])
        if name != ROOT and began <= created <= ended and deployments and deployments[0].get("id") == 0:
            waves.setdefault(state.wave, []).append((created, deployments[0]["deployedAt"]))
    if not waves:
        return ()
    pairs = itertools.pairwise(sorted(waves))
    early = [
        str(after) for before, after in pairs if min(waves[after])[0] < max(deployed for _, deployed in waves[before])
    ]
    result = " → ".join(map(str, sorted(waves))) + (f"; too early: {', '.join(early)}" if early else "")
    remedy = "see that argocd-cm has the health check for Applications (F54)"
    return (Check("each wave began after the one before was deployed", not early, result, remedy),)


def _history(obj: Mapping[str, Any] | None) -> list[Obj]:
    return ((obj or {}).get("status") or {}).get("history") or []


def _server_check(kube: Kube) -> Check:
    """Whether Argo CD's web interface has endpoints, and how to reach it; a command asks for the password."""
    slices = kube.list("discovery.k8s.io/v1", "EndpointSlice", NAMESPACE, labels=f"{LABEL}={SERVER}")
    endpoints = [endpoint for part in slices for endpoint in part.get("endpoints") or ()]
    ready = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    command = f"kubectl -n {NAMESPACE} port-forward service/{SERVER} {PORT}:80"
    result = f"{command}, then http://localhost:{PORT} as admin (argocd admin initial-password -n {NAMESPACE})"
    remedy = f"kubectl -n {NAMESPACE} describe deployment {SERVER}"
    return Check("Argo CD's web interface can be reached", bool(ready), result, remedy)
