"""The root Application and all others, as Argo CD tells of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.clients.kube.client import MANAGER
from fluobook.errors import NotFound
from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import ssa
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.root_application.state import API, KIND, State, state_of
from fluobook.stages.root_application.tip import Tip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.gitops import Application
    from fluobook.params import Platform

    Obj = dict[str, Any]

CONTROLLER = "argocd-application-controller"


@dataclass(frozen=True)
class Observation:
    """What there is.

    Args:
        applications: what the tree has, in the order of its waves.
        digest: a short name of the root Application as the platform wants it, without mirrors.
        missing: the earlier stage without which nothing can be handed over.
        root_is_right: whether the root Application is there and as it should be.
        states: every live Application by name.
        behind: those of our repository that are not at the pushed revision.
        objects: the live Applications themselves.
    """

    applications: Sequence[Application]
    digest: str
    missing: Missing | None = None
    root_is_right: bool = False
    states: Mapping[str, State] = field(default_factory=dict)
    behind: frozenset[str] = frozenset()
    objects: Mapping[str, Obj] = field(default_factory=dict, repr=False)

    def done(self, name: str) -> bool:
        """Whether an Application is all that it should be."""
        state = self.states.get(name)
        return state is not None and state.well and name not in self.behind


def observe(context: RunContext) -> Observation:
    """Read every Application, and what Git has."""
    tree = gitops.read(context.root, context.platform.gitops.path)
    digest = _digest(context.platform, tree)
    kube = api(context)
    missing = kube if isinstance(kube, Missing) else _before(kube)
    if missing or isinstance(kube, Missing):
        return Observation(tree.applications, digest, missing)
    compared = ssa.compare(kube, gitops.root_application(context.platform, tree), manager=MANAGER)
    objects = {obj["metadata"]["name"]: obj for obj in kube.list(API, KIND, NAMESPACE)}
    states = {name: state_of(obj) for name, obj in objects.items()}
    tip = Tip(context.platform)
    behind = frozenset(name for name, state in states.items() if not tip.reached(state))
    return Observation(tree.applications, digest, None, not compared.differs, states, behind, objects)


def _digest(platform: Platform, tree: gitops.Tree) -> str:
    plain = platform.model_copy(update={"gitops": platform.gitops.model_copy(update={"mirrors": {}})})
    content = json.dumps(gitops.root_application(plain, tree), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _before(kube: Kube) -> Missing | None:
    try:
        kube.transport.kind(API, KIND)
    except NotFound:
        return Missing("install-argocd", "the cluster does not know Applications yet")
    if kube.find("apps/v1", "StatefulSet", CONTROLLER, NAMESPACE) is None:
        return Missing("install-argocd", f"there is no {CONTROLLER} yet")
    return None


__all__ = ["ROOT", "Observation", "observe"]
