"""KSOPS generators: what they list exists, what exists they list, and Argo CD will run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops import documents, kustomization

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_FUNCTION = "config.kubernetes.io/function"


def generators_list_what_exists(look: Look) -> Iterator[Finding]:
    """Each generator lists exactly the encrypted files of its folder, is a generator, and is an exec function."""
    generators = [document for document in look.documents if document.kind == "ksops"]
    for generator in generators:
        yield from _of_one(look, generator)
    yield from _others(look)
    served = {generator.file.parent for generator in generators}
    for file in (one.file for one in look.encrypted):
        if file.is_relative_to(look.top) and file.parent not in served:
            yield look.in_file(file, 1).finding(
                "generator", "no KSOPS generator in its folder", "add one that lists it"
            )


def _others(look: Look) -> Iterator[Finding]:
    """What stands under `generators` and is none."""
    for folder in look.kustomizations:
        for name in kustomization.load(folder).data.get("generators") or []:
            for one in documents.read(folder / name):
                if one.kind != "ksops":
                    yield look.at(one, "kind").finding("generator", f"{one.kind} generates nothing", "write ksops")


def _of_one(look: Look, generator: Document) -> Iterator[Finding]:
    folder = generator.file.parent
    listed = generator.data.get("files") or []
    present = {one.file.name for one in look.encrypted if one.file.parent == folder}
    for index, name in enumerate(listed):
        if name in listed[:index]:
            yield look.at(generator, "files", index).finding("generator", f"{name} is listed twice", "list it once")
        if name not in present:
            yield look.at(generator, "files", index).finding(
                "generator", f"{name} does not exist", "create it with sops, or take it off the list"
            )
    for name in sorted(present - set(listed)):
        yield look.at(generator, "files").finding(
            "generator", f"{name} is not listed: it would never reach the cluster", "add it to files"
        )
    if "path: ksops" not in generator.annotations.get(_FUNCTION, ""):
        yield look.at(generator, "metadata").finding(
            "generator", f"it has no annotation {_FUNCTION} that runs ksops", "add `exec: {path: ksops}` to it"
        )
    if generator.file.name not in (kustomization.load(folder).data.get("generators") or []):
        yield look.in_file(folder / kustomization.NAME, 1).finding(
            "generator", f"{generator.file.name} is not under `generators`", "list it there, and not under resources"
        )
