"""Proves stage 8 from the Applications' own words, and says how to reach Argo CD."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.root_application.observe import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.context import RunContext
    from fluobook.stages.root_application.observe import Observation

    Obj = dict[str, Any]

SERVER, PORT = "argocd-server", 8080
LABEL = "kubernetes.io/service-name"


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 8."""
    names = [ROOT, *(one.name for one in seen.applications)]
    there = [name for name in names if name in seen.states]
    unwell = [f"{name} ({_words(seen, name)})" for name in names if name not in there or not seen.states[name].well]
    again = "run stage root-application again"
    told = context.platform.gitops
    ours = [name for name in names if name in seen.states and seen.states[name].repo == _repo(seen)]
    return (
        Check(
            "the root Application is as the params say", seen.root_is_right, f"{told.path} of {told.revision}", again
        ),
        Check(
            "every Application is Synced and Healthy, its operation Succeeded",
            not unwell,
            _count(len(names), unwell),
            again,
        ),
        Check(
            "those of our repository are at the pushed revision",
            bool(ours) and not seen.behind,
            _count(len(ours), sorted(seen.behind)),
            again,
        ),
        *_waves(seen),
        *_way_in(context),
    )


def _words(seen: Observation, name: str) -> str:
    return seen.states[name].words() if name in seen.states else "not there"


def _repo(seen: Observation) -> str:
    return seen.states[ROOT].repo if ROOT in seen.states else ""


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {'; '.join(wrong)}" if wrong else "")


def _waves(seen: Observation) -> Sequence[Check]:
    """Whether the waves came one after the other, by the history of the root's first deployment.

    Only Applications that this deployment made can report; what was made later says nothing about it. Argo CD keeps ten
    deployments, so later the question cannot be asked any more, and no check is made.
    """
    history = _history(seen.objects.get(ROOT))
    if not history or history[0].get("id") != 0 or not history[0].get("deployStartedAt"):
        return ()
    began, ended = history[0]["deployStartedAt"], history[0]["deployedAt"]
    waves: dict[int, list[tuple[str, str]]] = {}
    for name, state in seen.states.items():
        made, own = seen.objects[name]["metadata"].get("creationTimestamp", ""), _history(seen.objects[name])
        if name != ROOT and began <= made <= ended and own and own[0].get("id") == 0:
            waves.setdefault(state.wave, []).append((made, own[0]["deployedAt"]))
    numbers = sorted(waves)
    pairs = itertools.pairwise(numbers)
    early = [after for before, after in pairs if min(waves[after])[0] < max(done for _, done in waves[before])]
    evidence = " → ".join(str(number) for number in numbers)
    claim = "each wave began when the one before was deployed"
    told = f"{evidence}; too early: {', '.join(map(str, early))}" if early else evidence
    remedy = "see that argocd-cm has the health check for Applications (F54)"
    return (Check(claim, not early, told, remedy),) if numbers else ()


def _history(obj: Mapping[str, Any] | None) -> list[Obj]:
    return ((obj or {}).get("status") or {}).get("history") or []


def _way_in(context: RunContext) -> Sequence[Check]:
    """How a person reaches Argo CD; the password is asked for by a command, and never shown here."""
    kube = api(context)
    if isinstance(kube, Missing):
        return ()
    slices = kube.list("discovery.k8s.io/v1", "EndpointSlice", NAMESPACE, labels=f"{LABEL}={SERVER}")
    ready = [one for part in slices for one in part.get("endpoints") or () if _is_ready(one)]
    command = f"kubectl -n {NAMESPACE} port-forward service/{SERVER} {PORT}:80"
    evidence = f"{command}, then http://localhost:{PORT} as admin (argocd admin initial-password -n {NAMESPACE})"
    remedy = f"kubectl -n {NAMESPACE} describe deployment {SERVER}"
    return (Check("Argo CD's own pages can be reached", bool(ready), evidence, remedy),)


def _is_ready(endpoint: Mapping[str, Any]) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False
