"""The tree of a platform: what its root Application deploys, without the components that the params leave out.

A component is a folder with Applications, such as `scylladb` in cluster-gitops/apps, or a single Application. What can
be left over is in the operator's own files: upstream's are left out with the component.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluobook.errors import ParamsError
from fluobook.gitops import kustomization, metrics, reachability
from fluobook.gitops import tree as trees
from fluobook.gitops.documents import Position, walk
from fluobook.gitops.rules.applications import needs_of, providers_of
from fluobook.gitops.snapshot import Snapshot
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Finding
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
        ParamsError: there is no root Application; a component that is left out does not exist, or another needs it.
    """
    path, without, has = trees.settings_of(platform)
    if not (root / path / kustomization.NAME).exists():
        raise ParamsError(
            f"platform.gitops.path = {path!r}: there is no {path}/{kustomization.NAME}",
            remedy="name the folder of the root Application, such as cluster-gitops/bootstrap or site",
        )
    tree = trees.read(root, path, without, has)
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
    if unknown or essential or not tree.without:
        return (*unknown, *essential)
    everything = Snapshot(tree.root, tree.path, has=tree.has, reader=tree.reader)
    kept = Snapshot(tree.root, tree.path, tree.without, tree.has, tree.reader)
    still = providers_of(kept)
    providers = {need: app for need, app in providers_of(everything).items() if need not in still}
    missing = [
        f"{providers[need].name} cannot be left out: {app.name} needs {need} ({reason})"
        for app in kept.applications
        for need, reason, _ in needs_of(kept, app)
        if need in providers
    ]
    return tuple(dict.fromkeys(missing))


def nothing_is_left_over(snapshot: Snapshot) -> Iterator[Finding]:
    """Nothing of the operator's refers to a component that is left out, and no secret is kept for one alone."""
    tree, site = snapshot.tree, trees.site_folder(snapshot.root, snapshot.path)
    if not tree.without:
        return
    yield from _secrets_without_users(snapshot)
    if site is None:
        return
    dropped = tree.dropped_namespaces
    for document in snapshot.objects("NetworkPolicy", "CiliumNetworkPolicy"):
        for path, key, value in walk(document.data.get("spec"), ("spec",)):
            if key == "kubernetes.io/metadata.name" and value in dropped and document.file.is_relative_to(site):
                message = f"{document.name} admits namespace {value}, which is left out"
                yield document.at(*path).finding(message, "remove the rule")
    yield from _rows_without_pods(snapshot, site)
    table = snapshot.metrics
    gone = {name for name, (_, facts) in table.programs.items() if facts.get("component") in snapshot.without}
    names = "|".join(re.escape(name) for name, metric in table.metrics.items() if metric.program in gone)
    for file in snapshot.all_files if names else ():
        if file.is_relative_to(site) and file.suffix in (".json", ".yaml") and file.name != metrics.NAME:
            for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
                if metric := re.search(rf"\b({names})\b", line):
                    message = f"uses {metric[0]}, a metric of a component that is left out"
                    yield Position(file, number).finding(message, "remove the panel or the rule")


def _rows_without_pods(snapshot: Snapshot, site: Path) -> Iterator[Finding]:
    """Pods and rows of the operator's reachability table that name what is left out."""
    everything = Snapshot(snapshot.root, snapshot.path, has=snapshot.has, reader=snapshot.reader).table
    gone = {*everything.sources, *(f"namespace {name}" for name in snapshot.tree.dropped_namespaces)}
    gone -= set(snapshot.table.sources)
    for document in (document for document in snapshot.table.documents if document.file.is_relative_to(site)):
        for name in set(document.data.get("pods") or {}) & gone:
            yield document.at("pods", name).finding(f"{name} is in a namespace that is left out", "remove it")
        for index, row in enumerate(document.data.get("open") or ()):
            named = reachability.listed(row["from"]) + reachability.listed(row["to"])
            for name in (name for name in named if name in gone):
                yield document.at("open", index).finding(f"the row names {name}, which is left out", "remove it")


def _secrets_without_users(snapshot: Snapshot) -> Iterator[Finding]:
    everything = Snapshot(snapshot.root, snapshot.path, has=snapshot.has, reader=snapshot.reader)
    kept = {app.name for app in snapshot.applications}
    users: dict[str, set[str]] = {}
    for app in everything.applications:
        for need, _, _ in needs_of(everything, app):
            users.setdefault(need, set()).add(app.name)
    for need, app in providers_of(snapshot).items():
        names = users.get(need, set())
        if need.startswith("secret ") and names and not names & kept:
            message = f"{need} is only for {', '.join(sorted(names))}, which is left out"
            yield app.document.at("metadata", "name").finding(message, f"leave out {app.name} too, or keep both")
