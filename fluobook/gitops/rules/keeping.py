"""What must never go away by accident is neither pruned nor finalized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops.application import FINALIZER
from fluobook.gitops.knowledge import chart_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.look import Finding, Look

_HOLDS_DATA = {"Cluster", "RabbitmqCluster", "ScyllaCluster", "Namespace"}
_SYNC_OPTIONS = "argocd.argoproj.io/sync-options"


def what_must_stay_is_not_pruned(look: Look) -> Iterator[Finding]:
    """The network, the storage, Argo CD, the namespaces and the databases outlive any mistake in the tree."""
    for one in look.tree.applications:
        if chart_of(one).keeps or _holds_data(look, one):
            yield from _of_one(look, one)


def _of_one(look: Look, one: Application) -> Iterator[Finding]:
    if one.finalizer:
        place = look.at(one.document, "metadata", "finalizers")
        remedy = "take it off: deleting the Application must not delete what it deployed"
        yield place.finding("keeping", f"{one.name} has the finalizer {FINALIZER}", remedy)
    if one.prune:
        place = look.at(one.document, "spec", "syncPolicy", "automated", "prune")
        yield place.finding("keeping", f"{one.name} prunes", "set automated.prune to false")
    if "Prune=false" not in one.document.annotations.get(_SYNC_OPTIONS, ""):
        place = look.at(one.document, "metadata", "annotations")
        remedy = f"annotate it with {_SYNC_OPTIONS}: Prune=false,Delete=false"
        yield place.finding("keeping", f"the root would prune {one.name}", remedy)


def _holds_data(look: Look, one: Application) -> bool:
    return any(document.kind in _HOLDS_DATA for document in look.tree.deployed_by(one))
