"""Reads the objects of a kustomization without kustomize: fast, with files and lines, for this repository's plain tree.

It supports what the tree uses: resources (files and folders), and patches that are JSON 6902 or delete an object. It
refuses anything else; `fluobook.gitops.build` runs the real kustomize.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.errors import Rejected
from fluobook.gitops import documents
from fluobook.gitops.documents import InvalidFile
from fluobook.kubernetes import json_patch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook.gitops.documents import Document

NAME = "kustomization.yaml"
_KNOWN = {"apiVersion", "kind", "metadata", "resources", "patches", "generators", "configMapGenerator", "components"}


class KustomizeError(InvalidFile):
    """A kustomization is invalid, or uses what this reader does not support."""

    def __init__(self, message: str, *, file: Path, line: int = 0, remedy: str) -> None:
        super().__init__(message, file=file, line=line, system="kustomize", remedy=remedy)


def load(folder: Path) -> Document:
    """The kustomization of a folder.

    Raises:
        InvalidFile: there is none, or it is not YAML.
    """
    content = documents.read(folder / NAME)
    if not content:
        raise KustomizeError("is empty", file=folder / NAME, remedy="list its resources, or delete it")
    return content[0]


def resources(folder: Path) -> list[Document]:
    """Every object that the kustomization lists, itself or through folders, with its patches applied.

    Without the output of generators: secrets and dashboards are checked as files.

    Raises:
        InvalidFile: a file or folder is missing, or the kustomization uses what this reader does not support.
    """
    kustomization = load(folder)
    file = kustomization.file
    if unknown := sorted(set(kustomization.data) - _KNOWN):
        remedy = "write it with resources and patches; fluobook supports no more than that"
        raise KustomizeError(f"uses `{unknown[0]}`", file=file, line=kustomization.line(unknown[0]), remedy=remedy)
    objects: list[Document] = []
    for index, entry in enumerate(kustomization.data.get("resources") or []):
        path = Path(os.path.normpath(folder / entry))
        if not path.exists():
            line = kustomization.line("resources", index)
            remedy = "remove it from the list, or restore the file"
            raise KustomizeError(f"lists {entry}, which is not there", file=file, line=line, remedy=remedy)
        listed = resources(path) if path.is_dir() else documents.read(path)
        if not listed and path.is_file():
            raise KustomizeError("has no object", file=path, line=1, remedy="write one, or delete the file")
        objects += listed
    for index, patch in enumerate(kustomization.data.get("patches") or []):
        line = kustomization.line("patches", index)
        try:
            objects = _apply(objects, patch, folder)
        except InvalidFile as error:
            raise KustomizeError(error.problem, file=file, line=line, remedy=error.remedy) from error
        except Rejected as error:
            if "path" in patch:
                raise KustomizeError(error.message, file=folder / patch["path"], line=1, remedy=error.remedy) from error
            raise KustomizeError(error.message, file=file, line=line, remedy=error.remedy) from error
    return objects


def files(folder: Path) -> set[Path]:
    """Every file that the kustomization of one folder names: resources, generators, patches and what these read."""
    data = load(folder).data
    names = [*(data.get("resources") or []), *(data.get("generators") or [])]
    names += [patch["path"] for patch in data.get("patches") or [] if "path" in patch]
    for generator in data.get("configMapGenerator") or []:
        names += [entry.rpartition("=")[2] for entry in generator.get("files") or []]
    for generator in data.get("generators") or []:
        names += [name for document in documents.read(folder / generator) for name in document.data.get("files") or []]
    return {(folder / name).resolve() for name in names}


def patched(document: Document, operations: Iterable[json_patch.Operation]) -> Document:
    """The document with JSON patch operations applied.

    Raises:
        Rejected: an operation does not match the document.
    """
    try:
        return document.changed(json_patch.apply(document.data, operations))
    except json_patch.PatchError as error:
        raise Rejected(
            f"a patch does not match {document.kind} {document.name}: {error}",
            system="kustomize",
            remedy="compare the patch's paths with the object",
        ) from error


def _apply(objects: list[Document], patch: dict[str, Any], folder: Path) -> list[Document]:
    change = yaml.safe_load(patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text())
    target = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}

    def is_target(document: Document) -> bool:
        return document.kind == target.get("kind", document.kind) and document.name == target.get("name", document.name)

    if not any(map(is_target, objects)):
        raise KustomizeError(f"patches {target}, which is not there", file=folder / NAME, remedy="correct its target")
    if isinstance(change, dict) and change.get("$patch") == "delete":
        return [document for document in objects if not is_target(document)]
    if not isinstance(change, list):
        remedy = "write it as JSON 6902 operations"
        raise KustomizeError(f"patches {target} by merging", file=folder / NAME, remedy=remedy)
    return [patched(document, change) if is_target(document) else document for document in objects]
