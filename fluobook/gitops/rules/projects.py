"""AppProjects: each exists before its Applications, allows their sources, places and kinds, and no more than a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.gitops.application import WAVE
from fluobook.gitops.schemas import is_cluster_scoped, is_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look


def projects_allow_their_applications(look: Look) -> Iterator[Finding]:
    """What Argo CD would refuse for a project's sake, and projects that allow everything."""
    projects = {project.name: project for project in look.tree.projects}
    for declared in projects.values():
        yield from _too_wide(look, declared)
    for one in look.tree.applications:
        project = projects.get(one.project)
        if project is None:
            message = f"{one.name} is in project {one.project}, which does not exist"
            yield look.at(one.document, "spec", "project").finding("project", message, "correct it, or add the project")
            continue
        yield from _refused(look, one, project)
        if int(project.annotations.get(WAVE, "0")) >= one.wave:
            yield look.at(project, "metadata", "annotations", WAVE).finding(
                "project",
                f"project {project.name} comes no earlier than {one.name}",
                "give it a wave before all others",
            )


def _refused(look: Look, one: Application, project: Document) -> Iterator[Finding]:
    spec = project.data["spec"]
    if one.repo not in spec["sourceRepos"]:
        yield look.at(one.document, "spec", "source", "repoURL").finding(
            "project", f"project {project.name} does not allow {one.repo}", f"add it to {project.file.name}"
        )
    allowed = {destination["namespace"] for destination in spec["destinations"]}
    objects = look.tree.deployed_by(one)
    for place, namespace in [
        (look.at(one.document, "spec", "destination", "namespace"), one.namespace),
        *(
            (look.at(document, "metadata", "namespace"), document.namespace)
            for document in objects
            if document.namespace
        ),
    ]:
        if namespace not in allowed:
            yield place.finding(
                "project",
                f"project {project.name} does not allow namespace {namespace}",
                f"add it to {project.file.name}",
            )
    for document in objects:
        if not _is_allowed(document, spec):
            yield look.at(document, "kind").finding(
                "project",
                f"project {project.name} does not allow kind {document.kind}",
                f"add it to {project.file.name}",
            )


def _is_allowed(document: Document, spec: dict[str, Any]) -> bool:
    """Whether the kind is on the list it belongs to; either list does for a kind whose scope is not known."""
    cluster, namespaced = spec.get("clusterResourceWhitelist") or (), spec.get("namespaceResourceWhitelist") or ()
    if is_known(str(document.data.get("apiVersion", "")), document.kind):
        listed = cluster if is_cluster_scoped(document.group, document.kind) else namespaced
    else:
        listed = (*cluster, *namespaced)
    return {"group": document.group, "kind": document.kind} in listed


def _too_wide(look: Look, project: Document) -> Iterator[Finding]:
    spec = project.data["spec"]
    for field in ("sourceRepos", "destinations", "clusterResourceWhitelist", "namespaceResourceWhitelist"):
        if not spec.get(field):
            yield look.at(project, "spec").finding("project", f"{project.name} has no {field}", "list what it needs")
        for index, entry in enumerate(spec.get(field) or ()):
            if "*" in (entry.values() if isinstance(entry, dict) else [entry]):
                yield look.at(project, "spec", field, index).finding(
                    "project", f"{project.name} allows everything in {field}", "list what it needs"
                )
