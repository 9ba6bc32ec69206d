"""Stage 5, privileged-namespaces: the namespaces that must be there before Argo CD, with their PodSecurity labels.

Talos enforces the "baseline" level wherever a namespace says nothing else (F48), so what mounts host paths needs its
label before its first pod. The manifests are those of the tree, chosen there by their annotation
`fluobook/needed-before`; Argo CD owns them afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.errors import AccessDenied, Refused
from fluobook.stages.core import ssa
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.ssa import Compared

NAME = "privileged-namespaces"
LEVEL = "pod-security.kubernetes.io/enforce"
DEFAULT_LEVEL = "baseline"
"""What Talos enforces where no label says otherwise."""


@dataclass(frozen=True)
class Observation:
    """What there is.

    Args:
        wanted: the manifests, as the tree has them.
        missing: the earlier stage without which nothing can be looked at.
        compared: each manifest with what is live.
    """

    wanted: Sequence[Mapping[str, Any]]
    missing: Missing | None = None
    compared: Sequence[Compared] = field(default_factory=tuple)


def observe(context: RunContext) -> Observation:
    """Read the tree, and ask the API what applying each manifest would change."""
    wanted = gitops.namespaces_needed_before_argocd(gitops.read(context.root, context.platform.gitops.path))
    kube = api(context)
    if isinstance(kube, Missing):
        return Observation(wanted, kube)
    return Observation(wanted, None, ssa.compare_all(kube, wanted))


def plan(platform: Platform, seen: Observation) -> Plan:
    """One action for each namespace that is missing or differs.

    Raises:
        Refused: a namespace is being deleted.
    """
    if seen.missing:
        actions = tuple(_action(manifest, None) for manifest in seen.wanted)
        return Plan(NAME, actions, 0, platform.digest_data(), seen.missing.stage, (seen.missing.reason,))
    for one in seen.compared:
        _is_not_going(one)
    actions = tuple(_action(one.wanted, one.live) for one in seen.compared if one.differs)
    return Plan(NAME, actions, len(seen.compared) - len(actions), platform.digest_data())


def _is_not_going(one: Compared) -> None:
    if ((one.live or {}).get("status") or {}).get("phase") == "Terminating":
        raise Refused(
            f"{one.title} is being deleted",
            cause="somebody deleted it; what is in it goes with it",
            remedy=f"wait until it is gone: kubectl wait --for=delete namespace/{one.wanted['metadata']['name']}",
        )


def _action(manifest: Mapping[str, Any], live: Mapping[str, Any] | None) -> Action:
    name = manifest["metadata"]["name"]
    return Action(
        f"namespace {name}",
        "change" if live else "create",
        f"namespace {name}",
        f"PodSecurity {_level(manifest)}",
        _reason(manifest, live) if live else "not there",
        system="kubernetes",
        data={"manifest": manifest},
    )


def _level(manifest: Mapping[str, Any]) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(LEVEL, DEFAULT_LEVEL))


def _reason(manifest: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """Which labels and annotations are not as the tree has them."""
    told = []
    for part in ("labels", "annotations"):
        here = live["metadata"].get(part) or {}
        for key, value in (manifest["metadata"].get(part) or {}).items():
            if here.get(key) != value:
                told.append(f"{key} is {here.get(key, 'not set')}")
    return ", ".join(told) or "has labels or annotations that the tree took out"


def perform(context: RunContext, action: Action, _report: Reporter) -> Mapping[str, Any]:
    """Apply one namespace."""
    applied = ssa.apply(context.kube(), dict(action.data["manifest"]))
    return {"resourceVersion": applied["metadata"]["resourceVersion"]}


def admission(context: RunContext) -> Check:
    """Ask the API for a privileged pod where none is allowed, as a dry run.

    The level elsewhere is the API server's own setting, from the machine configuration; nothing else would miss it.
    """
    claim = "a namespace without a level of its own refuses privileged pods"
    container = {"name": "main", "image": "registry.invalid/none", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fluobook-asks", "namespace": "default"}}
    try:
        context.kube().create({**pod, "spec": {"containers": [container]}}, dry_run=True)
    except AccessDenied as error:
        return Check(claim, "PodSecurity" in str(error) + error.detail, "refused by PodSecurity")
    remedy = (
        "cluster.apiServer.admissionControl of the machine configuration lacks PodSecurity or exempts the namespace,"
        " or its extraArgs turn it off: see stage 2"
    )
    return Check(claim, False, "a privileged pod would be accepted", remedy=remedy)  # noqa: FBT003


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 5."""
    total, missing = len(seen.wanted), [one.title for one in seen.compared if one.missing]
    differing = [one.title for one in seen.compared if one.differs and not one.missing]
    there = [one for one in seen.compared if one.live]
    levels = ", ".join(f"{one.wanted['metadata']['name']} {_level(one.live or {})}" for one in there)
    return (
        Check(
            "every namespace that Argo CD's platform needs beforehand exists",
            len(there) == total,
            f"{len(there)} of {total}" + (f"; not: {', '.join(missing)}" if missing else ""),
            remedy="run stage privileged-namespaces again",
        ),
        Check(
            "each enforces the PodSecurity level that the tree asks for",
            bool(there) and not differing,
            levels or "none is there",
            remedy="run stage privileged-namespaces again",
        ),
        admission(context),
    )


STAGE = Stage(
    5,
    NAME,
    "Make the namespaces that Argo CD's platform needs beforehand",
    observe,
    plan,
    perform,
    verify,
    uses=("kubernetes",),
)
