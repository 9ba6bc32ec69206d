"""Stage 5, privileged-namespaces: the namespaces that must exist before Argo CD, with their PodSecurity labels.

Talos enforces the "baseline" level in every namespace without a label (F48), so a namespace whose pods mount host paths
needs its label before the first pod. The manifests are those of the tree with the annotation `fluobook/needed-before`;
Argo CD owns them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluobook import gitops
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.errors import KUBECTL, AccessDenied, Refused
from fluobook.params import Platform
from fluobook.stages.core import ssa
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.ssa import Compared
from fluobook.stages.core.stage import Stage

NAME = "privileged-namespaces"
LEVEL = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class Observation:
    """What exists.

    Args:
        wanted: the manifests, as the tree has them.
        missing: the earlier stage that has to run first.
        compared: each manifest with the live namespace.
    """

    wanted: Sequence[Mapping[str, Any]]
    missing: Missing | None = None
    compared: Sequence[Compared] = ()


def observe(context: RunContext) -> Observation:
    """Read the tree, and ask the API what applying each manifest would change."""
    wanted = gitops.namespaces_needed_before_argocd(gitops.of(context.platform, context.root))
    kube = api(context)
    if isinstance(kube, Missing):
        return Observation(wanted, kube)
    return Observation(wanted, None, ssa.compare_all(kube, wanted))


def plan(platform: Platform, observation: Observation) -> Plan:
    """One action for each namespace that is missing or differs.

    Raises:
        Refused: a namespace is being deleted.
    """
    if observation.missing:
        actions = tuple(_action(manifest, None) for manifest in observation.wanted)
        return Plan(NAME, actions, 0, platform.digest_data(), observation.missing.stage, (observation.missing.reason,))
    for entry in observation.compared:
        if ((entry.live or {}).get("status") or {}).get("phase") == "Terminating":
            raise Refused(
                f"{entry.title} is being deleted",
                cause="somebody deleted it, together with the objects in it",
                remedy=f"wait until it is gone: {KUBECTL} wait --for=delete {entry.title.replace(' ', '/')}",
            )
    actions = tuple(_action(entry.wanted, entry.live) for entry in observation.compared if entry.differs)
    return Plan(NAME, actions, len(observation.compared) - len(actions), platform.digest_data())


def _action(manifest: Mapping[str, Any], live: Mapping[str, Any] | None) -> Action:
    title, verb, reason = f"namespace {manifest['metadata']['name']}", "create", "does not exist"
    if live:
        verb = "change"
        reason = ", ".join(_differences(manifest, live)) or "has labels or annotations that the tree no longer has"
    data = {"manifest": manifest}
    return Action(title, verb, title, f"PodSecurity {_level(manifest)}", reason, system="kubernetes", data=data)


def _level(manifest: Mapping[str, Any]) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(LEVEL, "baseline"))


def _differences(manifest: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[str]:
    """Which labels and annotations differ from the tree."""
    for part in ("labels", "annotations"):
        actual = live["metadata"].get(part) or {}
        for key, value in (manifest["metadata"].get(part) or {}).items():
            if actual.get(key) != value:
                yield f"{key} is {actual.get(key, 'not set')}"


def perform(context: RunContext, action: Action, _report: Reporter) -> Mapping[str, Any]:
    """Apply one namespace."""
    applied = ssa.apply(context.kube(), dict(action.data["manifest"]))
    return {"resourceVersion": applied["metadata"]["resourceVersion"]}


def admission(kube: Kube) -> Check:
    """Create a privileged pod where none is allowed, as a dry run.

    The default level is a setting of the API server, from the machine configuration; no other check would detect that
    it is missing.
    """
    name = "a namespace without a level of its own refuses privileged pods"
    container = {"name": "main", "image": "registry.invalid/none", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fluobook-check", "namespace": "default"}}
    try:
        kube.create({**pod, "spec": {"containers": [container]}}, dry_run=True)
    except AccessDenied as error:
        return Check(name, "PodSecurity" in str(error) + error.detail, "refused by PodSecurity")
    remedy = (
        "cluster.apiServer.admissionControl of the machine configuration lacks PodSecurity or exempts the namespace,"
        " or its extraArgs turn it off: see stage 2"
    )
    return Check(name, passed=False, result="a privileged pod would be accepted", remedy=remedy)


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 5."""
    missing = [entry.title for entry in observation.compared if entry.missing]
    differing = [entry.title for entry in observation.compared if entry.differs and not entry.missing]
    live = [entry.live for entry in observation.compared if entry.live]
    levels = ", ".join(f"{namespace['metadata']['name']} {_level(namespace)}" for namespace in live)
    total, remedy = len(observation.wanted), "run stage privileged-namespaces again"
    existing = count(total, missing) if observation.compared else "none can be read"
    enforced = bool(live) and not differing
    return (
        Check("every namespace that the platform needs before Argo CD exists", len(live) == total, existing, remedy),
        Check("each enforces the PodSecurity level of the tree", enforced, levels or "none exists", remedy),
        admission(context.kube()),
    )


STAGE = Stage(
    5,
    NAME,
    "Create the namespaces that the platform needs before Argo CD",
    observe,
    plan,
    perform,
    verify,
    uses=("kubernetes",),
)
