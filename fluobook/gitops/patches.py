"""The patches that turn the tree in Git into one phase's platform, without an edit: mirrors and phase values.

The root Application carries them (`spec.source.kustomize.patches`), one for each Application or AppProject that
differs; what an Application deploys from a folder of ours is patched through that Application in the same way. A real
Argo CD does the rest (facts: tried with 3.5.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import ParamsError
from fluobook.gitops import patching
from fluobook.gitops.patching import Patch
from fluobook.gitops.phase import filled, names_in, values_of
from fluobook.gitops.tree import Tree
from fluobook.kubernetes.json_patch import MISSING, Operation, value_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Document
    from fluobook.gitops.phase import PhaseValue
    from fluobook.params import Platform


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """Where a source is really fetched: the longest beginning of its URL that has a mirror is replaced.

    >>> mirrored("https://charts.example.org/a", {"https://charts.example.org": "http://127.0.0.1:80/x"})
    'http://127.0.0.1:80/x/a'
    """
    fitting = [start for start in mirrors if url == start or url.startswith(start.rstrip("/") + "/")]
    if not fitting:
        return url
    start = max(fitting, key=len)
    return mirrors[start].rstrip("/") + url[len(start.rstrip("/")) :]


def patches_for(platform: Platform, tree: Tree) -> tuple[Patch, ...]:
    """The patches of the root Application; empty where the tree is as the platform wants it.

    Raises:
        ParamsError: the tree asks for a value that the platform does not have, or has no place for one of its pools.
    """
    values = values_of(platform)
    _refuse_pools_without_a_place(tree, values)
    found = [Patch("AppProject", one.name, tuple(_project(one, platform, tree))) for one in tree.projects]
    found += [Patch("Application", one.name, tuple(_of(one, platform, tree, values))) for one in tree.applications]
    return tuple(patch for patch in found if patch.operations)


def for_phase(platform: Platform, tree: Tree) -> Tree:
    """The tree as the phase sees it: its Applications and projects with the root's patches done."""
    changes = {(patch.kind, patch.name): patch.operations for patch in patches_for(platform, tree)}

    def changed(document: Document) -> Document:
        what = f"{document.kind} {document.name}"
        operations = changes.get((document.kind, document.name), ())
        return document.changed(patching.apply(document.data, operations, what)) if operations else document

    return Tree(tree.root, tree.path, tuple(changed(document) for document in tree.documents))


def own_source(platform: Platform) -> str:
    """Where Argo CD fetches this repository."""
    return mirrored(platform.gitops.repository, platform.gitops.mirrors)


def _of(one: Application, platform: Platform, tree: Tree, values: Mapping[str, Any]) -> Iterable[Operation]:
    gitops = platform.gitops
    repo = own_source(platform) if tree.is_ours(one) else mirrored(one.repo, gitops.mirrors)
    revision = gitops.revision if tree.is_ours(one) else one.version
    yield from _replace(one.document.data, "/spec/source/repoURL", repo)
    yield from _replace(one.document.data, "/spec/source/targetRevision", revision)
    for value in one.phase_values:
        if not value.kind:
            yield from _replace(one.document.data, value.path, filled(value.value, values))
    inner = [patch.for_kustomize() for patch in _inner(one, tree, values)]
    if not inner:
        return
    if not one.kustomize:
        yield {"op": "add", "path": "/spec/source/kustomize", "value": {"patches": inner}}
    elif "patches" not in one.kustomize:
        yield {"op": "add", "path": "/spec/source/kustomize/patches", "value": inner}
    else:
        yield from ({"op": "add", "path": "/spec/source/kustomize/patches/-", "value": patch} for patch in inner)


def _inner(one: Application, tree: Tree, values: Mapping[str, Any]) -> Iterable[Patch]:
    """The patches of the objects that the Application deploys."""
    objects = {(document.kind, document.name): document.data for document in tree.deployed_by(one)}
    targets = dict.fromkeys((value.kind, value.name) for value in one.phase_values if value.kind)
    for target in targets:
        if target not in objects:
            raise ParamsError(
                f"Application {one.name} has phase values for {' '.join(target)}, which it does not deploy",
                remedy=f"correct the annotation in {one.file}",
            )
        wanted = [value for value in one.phase_values if (value.kind, value.name) == target]
        if operations := [done for value in wanted for done in _filled(objects[target], value, values)]:
            yield Patch(*target, tuple(operations))


def _filled(data: dict[str, Any], value: PhaseValue, values: Mapping[str, Any]) -> Iterable[Operation]:
    return _replace(data, value.path, filled(value.value, values))


def _project(project: Document, platform: Platform, tree: Tree) -> Iterable[Operation]:
    ours = {one.repo for one in tree.applications if tree.is_ours(one)}
    for index, url in enumerate(project.data["spec"].get("sourceRepos") or ()):
        there = own_source(platform) if url in ours else mirrored(url, platform.gitops.mirrors)
        yield from _replace(project.data, f"/spec/sourceRepos/{index}", there)


def _replace(data: dict[str, Any], path: str, value: Any) -> Iterable[Operation]:
    """The operation that puts a value at a path, or none if it is there already."""
    here = value_at(data, path)
    if here != value or type(here) is not type(value):
        yield {"op": "add" if here is MISSING else "replace", "path": path, "value": value}


def _refuse_pools_without_a_place(tree: Tree, values: Mapping[str, Any]) -> None:
    asked = {name for one in tree.applications for value in one.phase_values for name in names_in(value.value)}
    for name in values:
        if name.startswith("pool.") and name not in asked:
            raise ParamsError(
                f"the tree has no CiliumLoadBalancerIPPool for {name.split('.')[1]}",
                cause="platform.network.load_balancer.pools names a pool that no Application asks for",
                remedy="take it out of the params, or add it to cluster-gitops/infrastructure/cilium/config",
            )
