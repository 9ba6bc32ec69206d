"""The tree of a platform: what its root Application deploys, without the components that the params leave out.

A component is a folder with Applications, such as `scylladb` in cluster-gitops/apps, or a single Application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import ParamsError
from fluobook.gitops import tree as trees
from fluobook.gitops.rules.applications import needs_of, providers_of
from fluobook.gitops.snapshot import Snapshot
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.gitops.tree import Tree
    from fluobook.params import Platform

_NEEDED = {
    "argocd": "stage 7 installs it, and it deploys all others",
    "cilium": "stage 2 installs it: without it no pod has a network",
    "kubelet-csr-approver": "it renews the kubelets' certificates after stage 4",
    "namespaces": "it makes the namespaces of all others",
    "network-policies": "every namespace is closed by it",
}


def of(platform: Platform, root: Path) -> Tree:
    """The tree of a platform, as it is in Git, without what the platform leaves out.

    Raises:
        Rejected: a file is missing or invalid.
        ParamsError: a component that is left out does not exist, or another needs it.
    """
    tree = trees.read(root, platform.gitops.path, platform.gitops.without)
    if problems := refusals(tree):
        raise ParamsError(
            "platform.gitops.without cannot be followed",
            problems=problems,
            remedy="correct the list: leave out what needs it too, or keep it",
        )
    return tree


def refusals(tree: Tree) -> tuple[str, ...]:
    """Why the components that a tree leaves out cannot be left out."""
    known = {*tree.components, *(app.name for app in tree.all_applications)}
    strangers = [name for name in tree.without if name not in known]
    unknown = [f"there is no component {name}: {did_you_mean(name, known)}" for name in strangers]
    essential = [f"{app.name} cannot be left out: {_NEEDED[app.name]}" for app in tree.left_out if app.name in _NEEDED]
    if unknown or essential or not tree.left_out:
        return (*unknown, *essential)
    everything, kept = Snapshot(tree.root, tree.path), Snapshot(tree.root, tree.path, tree.without)
    still = providers_of(kept)
    providers = {need: app for need, app in providers_of(everything).items() if need not in still}
    missing = [
        f"{providers[need].name} cannot be left out: {app.name} needs {need} ({reason})"
        for app in kept.applications
        for need, reason, _ in needs_of(kept, app)
        if need in providers
    ]
    return tuple(dict.fromkeys(missing))
