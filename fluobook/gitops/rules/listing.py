"""Every file of the tree is listed somewhere: what is not listed is never deployed, and nobody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops import documents, kustomization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.look import Finding, Look


def files_are_listed(look: Look) -> Iterator[Finding]:
    """Each file is named by a kustomization, and each folder by a kustomization or an Application, or it is a root."""
    named = set().union(*(kustomization.files(folder) for folder in look.kustomizations))
    paths = {(look.root / one.path).resolve() for root in look.roots for one in root.applications if one.path}
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


def _is_data(file: Path) -> bool:
    """Whether a file is not meant for the cluster: it holds no Kubernetes object."""
    return not any(document.kind for document in documents.read(file))
