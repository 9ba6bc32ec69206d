"""Talos' strategic merge of patches, on plain documents.

Documents meet by apiVersion, kind and name; one without a partner is added. Inside, the right side wins unless it is
empty or zero (`false` always wins); maps merge key by key; lists are joined, left then right. What Talos does
differently at some places stands in `rules.py`; what `$patch: delete` means in `deletion.py`.

Two things are stricter or saner than in Talos 1.13, on purpose: deleting a field that is not there is always an error
(Talos lets it pass for some), and a patch that says nothing about a volume's size leaves the size alone (Talos
drops it).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from fluobook.errors import ParamsError
from fluobook.machine.deletion import delete, split
from fluobook.machine.documents import Document, load
from fluobook.machine.rules import RULES, Path, Rules

#: Documents of a machine configuration or pieces of them, a single one, or their YAML text.
Patch = Mapping[str, Any] | Iterable[Mapping[str, Any]] | str

_LEGACY_KEYS = frozenset({"version", "debug", "persist", "machine", "cluster"})


def merge(documents: Iterable[Document], patch: Patch) -> list[Document]:
    """The documents with a patch applied; neither is changed.

    Args:
        documents: a machine configuration.
        patch: documents of the same kinds, a single one, or their YAML text.

    Raises:
        ParamsError: the patch is JSON 6902, deletes what is not there, meets a value of another type, or is malformed.
    """
    result = [copy.deepcopy(document) for document in documents]
    for change in _documents(patch):
        deletions, rest = split(change)
        for deletion in deletions:
            delete(result, deletion, identity(change))
        if rest is not None:
            _place(result, rest)
    return [_trimmed(document) for document in result]


def identity(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """By what documents meet: apiVersion, kind and name, all empty for the v1alpha1 document."""
    return document.get("apiVersion", ""), document.get("kind", ""), document.get("name", "")


def _documents(patch: Patch) -> list[Document]:
    if isinstance(patch, str):
        return _documents(load(patch))
    found = [dict(patch)] if isinstance(patch, Mapping) else [dict(document) for document in patch]
    for document in found:
        _require_document(document)
    return found


def _require_document(document: Document) -> None:
    if "op" in document and "path" in document:
        raise ParamsError(
            "JSON 6902 patches are not supported for machine configurations of several documents",
            remedy="write the patch as a piece of the configuration (a strategic merge patch)",
        )
    kind, version = document.get("kind"), document.get("apiVersion")
    if bool(kind) != bool(version):
        raise ParamsError(f"a document of a patch needs both apiVersion and kind, or neither; kind is {kind!r}")
    unknown = set(document) - _LEGACY_KEYS - {"$patch"}
    if not kind and unknown:
        raise ParamsError(
            f"a document without a kind has unknown keys: {', '.join(sorted(map(str, unknown)))}",
            cause="the v1alpha1 document knows only version, debug, persist, machine and cluster",
        )


def _place(documents: list[Document], change: Document) -> None:
    for index, document in enumerate(documents):
        if identity(document) == identity(change):
            documents[index] = _merged(document, change, (), RULES.get(change.get("kind", ""), {}))
            return
    documents.append(copy.deepcopy(change))


def _trimmed(document: Document) -> Document:
    """The document as Talos holds it once read: inline manifests begin with their first line that is not empty."""
    manifests = (document.get("cluster") or {}).get("inlineManifests")
    if not manifests:
        return document
    trimmed = [{**each, "contents": str(each.get("contents", "")).lstrip("\t\n\v\f\r")} for each in manifests]
    return {**document, "cluster": {**document["cluster"], "inlineManifests": trimmed}}


def _merged(left: Any, right: Any, path: Path, rules: Rules) -> Any:
    """Never changes `left` or `right`, but may hand out parts of them: the caller copied both."""
    if right is None:
        return left
    if left is None and path in rules and isinstance(right, list):
        left = []  # items of the patch meet each other, too
    if left is None:
        return copy.deepcopy(right)
    if _type(left) != _type(right):
        where = ".".join(path) or "the top"
        raise ParamsError(f"the patch cannot be merged at {where}: there is a {_type(left)}, not a {_type(right)}")
    if path in rules:
        return rules[path](left, right, lambda one, other, below: _merged(one, other, (*path, *below), rules))
    if isinstance(left, dict):
        return _merged_maps(left, right, path, rules)
    if isinstance(left, list):
        return [*left, *copy.deepcopy(right)]
    return left if _is_zero(right) else right


def _merged_maps(left: dict[str, Any], right: dict[str, Any], path: Path, rules: Rules) -> dict[str, Any]:
    result = dict(left)
    for key, value in right.items():
        if value is not None:
            result[key] = _merged(left.get(key), value, (*path, str(key)), rules)
    return result


def _is_zero(value: Any) -> bool:
    return not isinstance(value, bool) and value in ("", 0)


def _type(value: Any) -> str:
    if isinstance(value, dict):
        return "map"
    return "list" if isinstance(value, list) else "single value"
