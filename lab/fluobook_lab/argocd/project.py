"""AppProjects: from where an Application may come, to where it may go, and which kinds it may bring."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.names import IN_CLUSTER
from fluobook_lab.argocd.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.argocd.names import Key
    from fluobook_lab.kube.objects import Obj


def refusals(app: Obj, project: Obj | None) -> list[str]:
    """Why a project does not take an Application, in the controller's words; empty if it does."""
    spec = app["spec"]
    name = spec.get("project") or "default"
    if project is None:
        return [f"Application referencing project {name} which does not exist"]
    rules, destination = project.get("spec") or {}, spec.get("destination") or {}
    told = [
        f"application repo {source.get('repoURL', '')} is not permitted in project '{name}'"
        for source in sources_of(spec)
        if not _permits(rules.get("sourceRepos") or (), _repository(source.get("repoURL", "")))
    ]
    if not permits_destination(rules, destination, destination.get("namespace", "")):
        server = destination.get("server") or destination.get("name", "")
        where = f"server '{server}' and namespace '{destination.get('namespace', '')}'"
        told.append(f"application destination {where} do not match any of the allowed destinations in project '{name}'")
    return told


def permits_destination(rules: dict[str, Any], destination: dict[str, Any], namespace: str) -> bool:
    """Whether objects may go to a namespace of the Application's cluster."""
    server = destination.get("server") or (IN_CLUSTER if destination.get("name") == "in-cluster" else "")
    allowed = False
    for entry in rules.get("destinations") or ():
        space, where = str(entry.get("namespace", "")), str(entry.get("server") or entry.get("name") or "")
        denied = space.startswith("!") or where.startswith("!")
        there = fnmatch.fnmatchcase(server, where.removeprefix("!")) or (where == "in-cluster" and server == IN_CLUSTER)
        if there and fnmatch.fnmatchcase(namespace, space.removeprefix("!")):
            if denied:
                return False
            allowed = True
    return allowed


def forbids(project: Obj, destination: dict[str, Any], key: Key, *, namespaced: bool) -> str:
    """Why an object may not be applied, "" if it may."""
    rules, name = project.get("spec") or {}, project["metadata"]["name"]
    if namespaced:
        whitelist, blacklist = rules.get("namespaceResourceWhitelist"), rules.get("namespaceResourceBlacklist")
    else:
        whitelist, blacklist = rules.get("clusterResourceWhitelist") or [], rules.get("clusterResourceBlacklist")
    if (whitelist is not None and not _lists(whitelist, key)) or _lists(blacklist or (), key):
        return f"resource {key.group}:{key.kind} is not permitted in project {name}"
    if namespaced and not permits_destination(rules, destination, key.namespace):
        return f"namespace {key.namespace} is not permitted in project '{name}'"
    return ""


def _repository(url: str) -> str:
    """A repository URL as Argo CD compares it."""
    return url.rstrip("/").removesuffix(".git").lower()


def _permits(patterns: Iterable[str], url: str) -> bool:
    allowed = False
    for pattern in patterns:
        if fnmatch.fnmatchcase(url, _repository(pattern.removeprefix("!"))):
            if pattern.startswith("!"):
                return False
            allowed = True
    return allowed


def _lists(entries: Iterable[dict[str, str]], key: Key) -> bool:
    return any(
        fnmatch.fnmatchcase(key.group, entry.get("group", "")) and fnmatch.fnmatchcase(key.kind, entry.get("kind", ""))
        for entry in entries
    )
