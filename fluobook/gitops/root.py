"""The root Application, and its patches that adapt the tree in Git to one phase: mirrors and phase values.

The root carries them (`spec.source.kustomize.patches`), one for each Application or AppProject that differs; the
objects of a folder of this repository are patched through their Application in the same way. Argo CD does the rest.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from fluobook.errors import ParamsError
from fluobook.gitops import alerts, backups, kustomization
from fluobook.gitops.tree import PHASE_VALUES, Tree
from fluobook.kubernetes.json_patch import MISSING, Operation, value_at
from fluobook.kubernetes.kubelet_certificates import approved_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.gitops.documents import Document
    from fluobook.gitops.tree import Application, PhaseValue
    from fluobook.params import Platform

NAME = "root"
NAMESPACE = "argocd"
_QUORUM = 3
_NAME_IN_TEMPLATE = re.compile(r"\{([a-z0-9_.-]+)\}")


@dataclass(frozen=True)
class Patch:
    """JSON patch operations on one object, named by kind and name, or its removal: then `removes` is the object."""

    kind: str
    name: str
    operations: tuple[Operation, ...]
    removes: Document | None = None

    def for_kustomize(self) -> dict[str, Any]:
        """As an entry of `patches`, in a kustomization or in an Application's source."""
        target = {"kind": self.kind, "name": self.name}
        if self.removes is None:
            return {"target": target, "patch": json.dumps(list(self.operations))}
        metadata = {"name": self.name}
        if self.removes.namespace:
            target["namespace"] = metadata["namespace"] = self.removes.namespace
        data = {"apiVersion": self.removes.data["apiVersion"], "kind": self.kind, "metadata": metadata}
        return {"target": target, "patch": json.dumps({**data, "$patch": "delete"})}


def _removal(document: Document) -> Patch:
    return Patch(document.kind, document.name, (), document)


def root_application(platform: Platform, tree: Tree) -> dict[str, Any]:
    """The root Application of a platform, ready to be applied.

    It has no finalizer, and deletes nothing: deleting it must never delete the platform. Its project is Argo CD's own
    `default`, since it deploys the projects of the tree itself.

    Raises:
        ParamsError: the tree and the platform do not match; see `patches_for`.
    """
    source: dict[str, Any] = {
        "repoURL": own_source(platform),
        "targetRevision": platform.gitops.revision,
        "path": platform.gitops.path,
    }
    if patches := [patch.for_kustomize() for patch in patches_for(platform, tree)]:
        source["kustomize"] = {"patches": patches}
    backoff = {"duration": "10s", "factor": 2, "maxDuration": "3m"}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "project": "default",
            "source": source,
            "destination": {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "syncOptions": ["CreateNamespace=false", "Delete=false", "ServerSideApply=true"],
                "retry": {"limit": 10, "refresh": True, "backoff": backoff},
            },
        },
    }


def own_source(platform: Platform) -> str:
    """The URL from which Argo CD fetches this repository."""
    return platform.gitops.mirrored(platform.gitops.repository)


def for_phase(platform: Platform, tree: Tree) -> Tree:
    """The tree as the phase sees it: its Applications and projects with the root's patches applied.

    Raises:
        ParamsError: as `patches_for`.
    """
    changes = {(patch.kind, patch.name): patch.operations for patch in patches_for(platform, tree) if patch.operations}

    def changed(document: Document) -> Document:
        operations = changes.get((document.kind, document.name))
        return kustomization.patched(document, operations) if operations else document

    return replace(tree, documents=tuple(changed(document) for document in tree.documents))


def patches_for(platform: Platform, tree: Tree) -> tuple[Patch, ...]:
    """The patches of the root Application; empty where the tree is as the platform needs it.

    Raises:
        ParamsError: the tree needs a value that the platform does not have, or has no place for one of its pools.
    """
    values = values_of(platform)
    used = {name for app in tree.applications for value in app.phase_values for name in names_in(value.value)}
    for name in values:
        if name.startswith("pool.") and name not in used:
            raise ParamsError(
                f"the tree has no CiliumLoadBalancerIPPool for {name.split('.')[1]}",
                cause="platform.network.load_balancer.pools has a pool that no Application uses",
                remedy="remove it from the params, or add it to cluster-gitops/infrastructure/cilium/config",
            )
    patches = [
        Patch("AppProject", project.name, tuple(_for_project(project, platform, tree))) for project in tree.projects
    ]
    patches += [
        Patch("Application", app.name, tuple(_for_application(app, platform, tree, values)))
        for app in tree.applications
        if app.repo
    ]
    removals = [_removal(app.document) for app in tree.left_out]
    return (*(patch for patch in patches if patch.operations), *removals)


def values_of(platform: Platform) -> dict[str, Any]:
    """Every value of a platform that a template in the tree can name.

    Databases and the broker get three instances where three hosts can fail apart, else one: two are no quorum. Where
    they copy their data themselves, their volumes have one copy. A single instance has no disruption budget: it would
    keep its node from ever being drained.
    """
    replicas = platform.storage.replicas
    instances = _QUORUM if len(platform.failure_domains) >= _QUORUM else 1
    balancer, approved = platform.network.load_balancer, approved_nodes(platform)
    return {
        "domain": platform.gitops.domain,
        "acme_email": platform.gitops.acme_email,
        "longhorn_replicas": replicas,
        "database_instances": instances,
        "database_budget": instances > 1,
        "database_volume_replicas": str(1 if instances > 1 else replicas),
        "cilium_operator_replicas": min(2, len(platform.nodes)),
        "node_prefixes": [str(ip_network(node.address)) for node in approved],
        "node_name_regex": f"^({'|'.join(re.escape(node.name) for node in approved)})$".replace(r"\-", "-"),
        "l2_announce": balancer.announce,
        "mtu": platform.network.mtu,
        **alerts.values_of(platform),
        **backups.values_of(platform),
        **{f"pool.{pool.name}.start": str(pool.start) for pool in balancer.pools},
        **{f"pool.{pool.name}.stop": str(pool.stop) for pool in balancer.pools},
    }


def without_unused(document: Document, app: Application, has: Iterable[str]) -> Document:
    """An object as a platform receives it that has only that: without what it has no use for."""
    operations: list[Operation] = [
        {"op": "remove", "path": value.path}
        for value in app.phase_values
        if value.only_with and value.only_with not in has
        if (value.kind, value.name) == (document.kind, document.name)
        if value_at(document.data, value.path) is not MISSING
    ]
    return kustomization.patched(document, operations) if operations else document


def rest_of(template: str) -> str:
    """What a template has beside the names of values."""
    return _NAME_IN_TEMPLATE.sub("", template)


def names_in(template: str) -> list[str]:
    """The names of values in a template."""
    return _NAME_IN_TEMPLATE.findall(template)


def _filled(template: str, values: Mapping[str, Any]) -> Any:
    """The template with its names replaced; "{name}" alone gives the value itself, whatever its type."""
    names = names_in(template)
    if missing := [name for name in names if name not in values]:
        raise ParamsError(
            f"the tree needs {missing[0]}, which this phase does not have",
            cause="a pool of platform.network.load_balancer is missing" if missing[0].startswith("pool.") else "",
            remedy=f"set it in the params, or remove it from the annotation {PHASE_VALUES}",
        )
    if names and template == f"{{{names[0]}}}":
        return values[names[0]]
    return _NAME_IN_TEMPLATE.sub(lambda match: str(values[match[1]]), template)


def _for_project(project: Document, platform: Platform, tree: Tree) -> Iterable[Operation]:
    ours = {app.repo for app in tree.applications if tree.is_ours(app)}
    for index, url in enumerate(project.data["spec"].get("sourceRepos") or ()):
        source = own_source(platform) if url in ours else platform.gitops.mirrored(url)
        yield from _replace(project.data, f"/spec/sourceRepos/{index}", source)


def _for_application(
    app: Application, platform: Platform, tree: Tree, values: Mapping[str, Any]
) -> Iterable[Operation]:
    data, ours = app.document.data, tree.is_ours(app)
    repo = own_source(platform) if ours else platform.gitops.mirrored(app.repo)
    yield from _replace(data, "/spec/source/repoURL", repo)
    yield from _replace(data, "/spec/source/targetRevision", platform.gitops.revision if ours else app.version)
    for value in app.phase_values:
        if not value.kind:
            yield from _changes(data, value, tree, values)
    inner = [patch.for_kustomize() for patch in _for_objects(app, tree, values)]
    if inner and not app.kustomize:
        yield {"op": "add", "path": "/spec/source/kustomize", "value": {"patches": inner}}
    elif inner and "patches" not in app.kustomize:
        yield {"op": "add", "path": "/spec/source/kustomize/patches", "value": inner}
    else:
        yield from ({"op": "add", "path": "/spec/source/kustomize/patches/-", "value": patch} for patch in inner)


def _for_objects(app: Application, tree: Tree, values: Mapping[str, Any]) -> Iterable[Patch]:
    """The patches of the objects that the Application deploys."""
    objects = {(document.kind, document.name): document.data for document in tree.deployed_by(app)}
    dropped = [document for document in tree.all_deployed_by(app) if tree.is_dropped(document)]
    gone = {(document.kind, document.name) for document in dropped}
    for kind, name in dict.fromkeys((value.kind, value.name) for value in app.phase_values if value.kind):
        if (kind, name) in gone:
            continue
        if (kind, name) not in objects:
            raise ParamsError(
                f"Application {app.name} has phase values for {kind} {name}, which it does not deploy",
                remedy=f"correct the annotation in {app.file}",
            )
        operations: tuple[Operation, ...] = tuple(
            operation
            for value in app.phase_values
            if (value.kind, value.name) == (kind, name)
            for operation in _changes(objects[kind, name], value, tree, values)
        )
        if operations:
            yield Patch(kind, name, operations)
    yield from map(_removal, dropped)


def objects_for(platform: Platform, tree: Tree) -> list[Document]:
    """The objects of this repository's folders as the platform receives them, with its phase values.

    Raises:
        ParamsError: as `patches_for`.
    """
    values = values_of(platform)
    objects: list[Document] = []
    for app in tree.applications:
        changes = {(patch.kind, patch.name): patch.operations for patch in _for_objects(app, tree, values)}
        objects += [
            kustomization.patched(document, changes.get((document.kind, document.name), ()))
            for document in tree.deployed_by(app)
        ]
    return objects


def _changes(data: dict[str, Any], value: PhaseValue, tree: Tree, values: Mapping[str, Any]) -> Iterable[Operation]:
    if not value.only_with:
        yield from _replace(data, value.path, _filled(value.value, values))
    elif value.only_with not in tree.has and value_at(data, value.path) is not MISSING:
        yield {"op": "remove", "path": value.path}


def _replace(data: dict[str, Any], path: str, value: Any) -> Iterable[Operation]:
    """The operation that sets a value at a path, or none if it is set already."""
    current = value_at(data, path)
    if current != value or type(current) is not type(value):
        yield {"op": "add" if current is MISSING else "replace", "path": path, "value": value}
