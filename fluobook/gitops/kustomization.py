"""Reads what a kustomization brings, without kustomize: fast, with files and lines, for our own plain tree.

It knows what our tree uses: resources (files and folders), and patches that are JSON 6902 or delete an object. Anything
else is refused rather than passed over; `fluobook.gitops.build` asks the real kustomize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from fluobook.errors import Rejected
from fluobook.gitops import documents, patching
from fluobook.gitops.documents import Misplaced

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.gitops.documents import Document

NAME = "kustomization.yaml"
_KNOWN = {"apiVersion", "kind", "metadata", "resources", "patches", "generators", "configMapGenerator", "components"}


def load(folder: Path) -> Document:
    """The kustomization of a folder.

    Raises:
        Misplaced: there is none, or it is no YAML.
    """
    found = documents.read(folder / NAME)
    if not found:
        raise Misplaced("is empty", file=folder / NAME, system="kustomize", remedy="list its resources, or delete it")
    return found[0]


def resources(folder: Path) -> list[Document]:
    """Every object that the kustomization lists, itself or through folders, with its patches done.

    What generators make is not in it: secrets and dashboards are looked at as files.

    Raises:
        Misplaced: a file or folder is missing, or the kustomization uses what this reader does not know.
    """
    kustomization = load(folder)
    if unknown := sorted(set(kustomization.data) - _KNOWN):
        raise Misplaced(
            f"uses `{unknown[0]}`",
            file=kustomization.file,
            line=kustomization.line(unknown[0]),
            system="kustomize",
            remedy="write it with resources and patches; fluobook reads no more than that",
        )
    found: list[Document] = []
    for index, entry in enumerate(kustomization.data.get("resources") or []):
        path = folder / entry
        if not path.exists():
            raise Misplaced(
                f"lists {entry}, which is not there",
                file=kustomization.file,
                line=kustomization.line("resources", index),
                system="kustomize",
                remedy="take it off the list, or bring the file back",
            )
        found += resources(path) if path.is_dir() else _objects(path)
    for index, patch in enumerate(kustomization.data.get("patches") or []):
        try:
            found = _patched(found, patch, folder)
        except Misplaced as error:
            line = kustomization.line("patches", index)
            raise Misplaced(
                error.what, file=kustomization.file, line=line, system="kustomize", remedy=error.remedy
            ) from error
        except Rejected as error:
            file = folder / patch["path"] if "path" in patch else kustomization.file
            line = 1 if "path" in patch else kustomization.line("patches", index)
            raise Misplaced(error.message, file=file, line=line, system="kustomize", remedy=error.remedy) from error
    return found


def _objects(file: Path) -> list[Document]:
    found = documents.read(file)
    if not found:
        raise Misplaced(
            "holds no object", file=file, line=1, system="kustomize", remedy="write one, or delete the file"
        )
    return found


def files(folder: Path) -> set[Path]:
    """Every file that the kustomization of one folder names: resources, generators, patches and what these read."""
    data = load(folder).data
    named = [*(data.get("resources") or []), *(data.get("generators") or [])]
    named += [patch["path"] for patch in data.get("patches") or [] if "path" in patch]
    for generator in data.get("configMapGenerator") or []:
        named += [entry.rpartition("=")[2] for entry in generator.get("files") or []]
    for generator in data.get("generators") or []:
        named += [name for found in documents.read(folder / generator) for name in found.data.get("files") or []]
    return {(folder / name).resolve() for name in named}


def _patched(found: list[Document], patch: dict[str, Any], folder: Path) -> list[Document]:
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
    change = yaml.safe_load(text)
    target = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}
    concerned = [document for document in found if _is(document, target)]
    if not concerned:
        raise Misplaced(
            f"patches {target}, which is not there", file=folder / NAME, system="kustomize", remedy="correct its target"
        )
    if patching.deletes(change):
        return [document for document in found if document not in concerned]
    if not isinstance(change, list):
        remedy = "write it as JSON 6902 operations"
        raise Misplaced(f"patches {target} by merging", file=folder / NAME, system="kustomize", remedy=remedy)
    return [_changed(document, change) if document in concerned else document for document in found]


def _changed(document: Document, operations: list[dict[str, Any]]) -> Document:
    what = f"{document.kind} {document.name}"
    return document.changed(patching.apply(document.data, tuple(operations), what))


def _is(document: Document, target: dict[str, str]) -> bool:
    return document.kind == target.get("kind", document.kind) and document.name == target.get("name", document.name)
