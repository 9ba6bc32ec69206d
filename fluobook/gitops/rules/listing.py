"""Every file of the tree is listed somewhere: what is not listed is never deployed, and nobody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops import documents, kustomization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_DASHBOARD = "grafana_dashboard"
"""The label that Grafana's sidecar asks for unless its chart is told otherwise."""


def files_are_listed(look: Look) -> Iterator[Finding]:
    """Each file is named by a kustomization, and each folder by a kustomization or an Application, or it is a root."""
    named = set().union(*(kustomization.files(folder) for folder in look.kustomizations))
    paths = {(look.root / one.path).resolve() for root in look.roots for one in root.applications if one.path}
    for folder in look.kustomizations:
        yield from _unseen(look, kustomization.load(folder))
    for file in sorted(look.top.rglob("*.json")):
        if file.resolve() not in named:
            yield look.in_file(file, 1).finding("listing", "no kustomization reads it", "list it, or delete it")
    for file in look.files:
        if file.name == kustomization.NAME:
            folder = file.parent.resolve()
            if folder not in named | paths and not folder.name.startswith("bootstrap"):
                yield look.in_file(file, 1).finding(
                    "listing", "neither a kustomization nor an Application names its folder", "list it, or delete it"
                )
        elif file.resolve() not in named and not _is_data(file):
            yield look.in_file(file, 1).finding(
                "listing", "no kustomization lists it: it is never deployed", "list it, or delete it"
            )


def _unseen(look: Look, document: Document) -> Iterator[Finding]:
    """Generators of dashboards whose ConfigMap has no label that Grafana's sidecar asks for."""
    path = ("grafana", "sidecar", "dashboards", "label")
    wanted = {str(documents.value_under(one.values, path) or _DASHBOARD) for one in look.tree.applications}
    for index, generator in enumerate(document.data.get("configMapGenerator") or ()):
        labels = documents.value_under(generator, ("options", "labels")) or {}
        holds = any(str(entry).endswith(".json") for entry in generator.get("files") or ())
        if holds and not wanted & set(labels):
            message = f"nothing reads the dashboards of {generator.get('name')}"
            place = look.at(document, "configMapGenerator", index, "options", "labels")
            yield place.finding("listing", message, f"label it {' or '.join(sorted(wanted))}")


def _is_data(file: Path) -> bool:
    """Whether a file is not meant for the cluster: it holds no Kubernetes object."""
    return not any(document.kind for document in documents.read(file))
