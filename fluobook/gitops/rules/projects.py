"""AppProjects: each exists before its Applications, allows their sources, places and kinds, and no more than a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.gitops.application import WAVE
from fluobook.gitops.knowledge import chart_of
from fluobook.gitops.schemas import is_cluster_scoped, is_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_KINDS = ("clusterResourceWhitelist", "namespaceResourceWhitelist")


@dataclass(frozen=True)
class Asked:
    """What one Application asks of its project: an entry of one of the project's lists, and where it asks for it."""

    field: str
    entry: Any
    document: Document
    path: tuple[str, ...]

    def told(self) -> str:
        """The entry, for a person."""
        return f"kind {self.entry['kind']}" if isinstance(self.entry, dict) else str(self.entry)


def projects_allow_their_applications(look: Look) -> Iterator[Finding]:
    """What Argo CD would refuse for a project's sake, and projects that allow everything."""
    projects = {project.name: project for project in look.tree.projects}
    for project in projects.values():
        members = [one for one in look.tree.applications if one.project == project.name]
        yield from _too_wide(look, project)
        yield from _refused(look, project, [asked for one in members for asked in _asked(look, one)])
        if late := [one.name for one in look.tree.applications if one.wave <= int(project.annotations.get(WAVE, "0"))]:
            yield look.at(project, "metadata", "annotations", WAVE).finding(
                "project", f"project {project.name} comes no earlier than {late[0]}", "give it a wave before all others"
            )
    for one in look.tree.applications:
        if one.project not in projects:
            message = f"{one.name} is in project {one.project}, which does not exist"
            yield look.at(one.document, "spec", "project").finding("project", message, "correct it, or add the project")


def _asked(look: Look, one: Application) -> Iterator[Asked]:
    yield Asked("sourceRepos", one.repo, one.document, ("spec", "source", "repoURL"))
    yield Asked("destinations", one.namespace, one.document, ("spec", "destination", "namespace"))
    for made in chart_of(one).makes:
        name, _, group = made.partition(".")
        yield Asked("", {"group": group, "kind": name}, one.document, ("spec", "source"))
    for document in look.tree.deployed_by(one):
        if document.namespace:
            yield Asked("destinations", document.namespace, document, ("metadata", "namespace"))
        kind = {"group": document.group, "kind": document.kind}
        known = is_known(str(document.data.get("apiVersion", "")), document.kind)
        cluster = is_cluster_scoped(document.group, document.kind)
        field = _KINDS[0] if cluster else _KINDS[1]
        yield Asked(field if known else "", kind, document, ("kind",))


def _refused(look: Look, project: Document, asked: list[Asked]) -> Iterator[Finding]:
    """What the project does not allow, told where the mistake is.

    What several ask for, or any if every entry of the list is used, the list lacks; what one alone asks for while an
    entry is left over is likely misspelt.
    """
    wanting: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        if one.entry not in _allowed(project, one.field):
            wanting.setdefault((one.field, one.told()), []).append(one)
    for (field, told), found in wanting.items():
        message = f"project {project.name} does not allow {told}"
        at = ("spec", field or _KINDS[1])
        used = [one.entry for one in asked if one.field == field]
        if field in ("", *_KINDS) or len(found) > 1 or all(entry in used for entry in _allowed(project, field)):
            where = look.told(found[0].document, *found[0].path)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield look.at(project, *at).finding("project", f"{message}, which {where}{more} asks for", "add it here")
        else:
            yield from (
                look.at(one.document, *one.path).finding(
                    "project", message, f"correct it, or add it at {look.told(project, *at)}"
                )
                for one in found
            )


def _allowed(project: Document, field: str) -> list[Any]:
    """The entries of a list; of both lists of kinds for a kind whose scope is not known."""
    spec = project.data.get("spec") or {}
    if field == "destinations":
        return [destination.get("namespace") for destination in spec.get(field) or ()]
    return [entry for name in ((field,) if field else _KINDS) for entry in spec.get(name) or ()]


def _too_wide(look: Look, project: Document) -> Iterator[Finding]:
    spec = project.data.get("spec") or {}
    for field in ("clusterResourceBlacklist", "namespaceResourceBlacklist"):
        if spec.get(field):
            yield look.at(project, "spec", field).finding(
                "project", f"{project.name} forbids what it allows elsewhere", "list what it needs, and nothing else"
            )
    for field in ("sourceRepos", "destinations", "clusterResourceWhitelist", "namespaceResourceWhitelist"):
        if not spec.get(field):
            yield look.at(project, "spec").finding("project", f"{project.name} has no {field}", "list what it needs")
        for index, entry in enumerate(spec.get(field) or ()):
            if "*" in (entry.values() if isinstance(entry, dict) else [entry]):
                yield look.at(project, "spec", field, index).finding(
                    "project", f"{project.name} allows everything in {field}", "list what it needs"
                )
