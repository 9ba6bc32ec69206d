"""Talos' strategic merge of patches, on plain documents.

Documents match by apiVersion, kind and name; one without a counterpart is added. Inside, the right side wins unless it
is empty or zero (`false` always wins); maps merge key by key; lists are joined, left then right. `RULES` has the places
where Talos 1.13 differs. `$patch: delete` deletes a map, a key, an item of a list or a whole document.

Three things are stricter than in Talos 1.13, on purpose: deleting a document of an unknown kind is an error (Talos does
nothing), and one that is absent by its name too (Talos 1.13.9 panics); a patch that does not name a volume's size
leaves the size alone (Talos drops it).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fluobook.errors import ParamsError
from fluobook.files import packaged
from fluobook.machine.documents import Document, load
from fluobook.machine.validation import decoding_problem

# Documents of a machine configuration or pieces of them, a single one, or their YAML text.
Patch = Mapping[str, Any] | Iterable[Mapping[str, Any]] | str
# A place in a document; the items of a list are "*".
Path = tuple[str, ...]
# Merges the values below a place: left, right, and the path from that place on.
Below = Callable[[Any, Any, Path], Any]
# Merges two values at a place.
Rule = Callable[[Any, Any, Below], Any]
Rules = Mapping[Path, Rule]

_LEGACY_KEYS = frozenset({"version", "debug", "persist", "machine", "cluster"})
_MARK, _VERB = "$patch", "delete"
_HEAD = frozenset({"version", "apiVersion", "kind", "name"})
# Maps that Talos leaves out when they are empty. Structures stay as `{}`.
_OMITTED_WHEN_EMPTY = frozenset(
    [
        *["env", "extraArgs", "extraManifestHeaders", "extraTags", "mirrors", "sysctls", "sysfs"],
        *["nodeAnnotations", "nodeLabels", "nodeTaints", "annotations", "labels", "taints", "params"],
    ]
)
_DELETED = object()
NEWEST = "1.14"
"""The version of Talos whose fields a patch may name."""


def merge(documents: Iterable[Document], patch: Patch) -> list[Document]:
    """The documents with a patch applied; neither is changed.

    Args:
        documents: a machine configuration.
        patch: documents of the same kinds, a single one, or their YAML text.

    Raises:
        ParamsError: the patch is JSON 6902, deletes what is missing, meets a value of another type, or is malformed.
    """
    result = [copy.deepcopy(document) for document in documents]
    merged = []
    for change in _documents(patch):
        deletions: list[Deletion] = []
        rest = _without_deletions(change, (), deletions)
        for deletion in deletions:
            _delete(result, deletion, _identity(change))
        if rest is not _DELETED and (set(rest) - _HEAD or (rest.get("kind") and not deletions)):
            merged.append(rest)
    for rest in merged:  # Talos deletes first, whatever the order
        _merge_document(result, rest)
    return [_trimmed(document) for document in result]


def _identity(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """The values by which documents match: apiVersion, kind and name, all empty for the v1alpha1 document."""
    return str(document.get("apiVersion", "")), str(document.get("kind", "")), str(document.get("name", ""))


def _documents(patch: Patch) -> list[Document]:
    if isinstance(patch, str):
        return _documents(load(patch))
    documents = [dict(patch)] if isinstance(patch, Mapping) else [dict(document) for document in patch]
    for document in documents:
        _require_document(document)
    identities = [_identity(document) for document in documents if _MARK not in document]
    if duplicate := next((each for each in identities if identities.count(each) > 1), None):
        name = " ".join(filter(None, duplicate)) or "v1alpha1"
        raise ParamsError(f"the patch has the document {name} twice", remedy="write both parts into one document")
    return documents


def _require_document(document: Document) -> None:
    if "op" in document and "path" in document:
        raise ParamsError(
            "JSON 6902 patches are not supported for machine configurations of several documents",
            remedy="write the patch as a piece of the configuration (a strategic merge patch)",
        )
    kind, version = document.get("kind"), document.get("apiVersion")
    if bool(kind) != bool(version):
        raise ParamsError(f"a document of a patch needs both apiVersion and kind, or neither; kind is {kind!r}")
    unknown = set(document) - _LEGACY_KEYS - {_MARK}
    if not kind and unknown:
        raise ParamsError(
            f"a document without a kind has unknown keys: {', '.join(sorted(map(str, unknown)))}",
            cause="the v1alpha1 document knows only version, debug, persist, machine and cluster",
        )


def _merge_document(documents: list[Document], change: Document) -> None:
    for index, document in enumerate(documents):
        if _identity(document) == _identity(change):
            documents[index] = _merged(document, change, (), RULES.get(change.get("kind", ""), {}))
            return
    documents.append(copy.deepcopy(change))


def _trimmed(document: Document) -> Document:
    """The document as Talos reads it: inline manifests start with their first line that is not empty."""
    manifests = (document.get("cluster") or {}).get("inlineManifests")
    if not manifests:
        return document
    trimmed = [{**each, "contents": str(each.get("contents", "")).lstrip("\t\n\v\f\r")} for each in manifests]
    return {**document, "cluster": {**document["cluster"], "inlineManifests": trimmed}}


def _merged(left: Any, right: Any, path: Path, rules: Rules) -> Any:
    """Never changes `left` or `right`, but may return parts of them: the caller copied both."""
    if right is None:
        return left
    if left is None and path in rules and isinstance(right, list):
        left = []  # items of the patch match each other, too
    if left is None:
        return copy.deepcopy(right)
    if _type(left) != _type(right):
        where = ".".join(path) or "the top"
        raise ParamsError(f"the patch cannot be merged at {where}: there is a {_type(left)}, not a {_type(right)}")
    if path in rules:
        return rules[path](left, right, lambda old, new, below: _merged(old, new, (*path, *below), rules))
    if isinstance(left, dict):
        changes = {key: value for key, value in right.items() if value is not None}
        return {**left, **{key: _merged(left.get(key), changes[key], (*path, str(key)), rules) for key in changes}}
    if isinstance(left, list):
        return [*left, *copy.deepcopy(right)]
    is_zero = not isinstance(right, bool) and right in ("", 0)
    return left if is_zero else right


def _type(value: Any) -> str:
    if isinstance(value, dict):
        return "map"
    return "list" if isinstance(value, list) else "single value"


@dataclass(frozen=True)
class Deletion:
    """One thing to delete: the keys that lead to it, and for an item of a list the field that identifies it."""

    path: Path
    field: str = ""
    value: Any = None

    def __str__(self) -> str:
        """The place, for a person."""
        where = ".".join(self.path) or "the document"
        return f"{where}[{self.field}={self.value}]" if self.field else where


def _without_deletions(value: Any, path: Path, deletions: list[Deletion], *, in_list: bool = False) -> Any:
    """A patch's value without its `$patch: delete`, which are added to `deletions`; `_DELETED` if nothing is left.

    Raises:
        ParamsError: `$patch` has another verb than delete, or is where Talos does not allow it.
    """
    if isinstance(value, dict):
        if _MARK in value:
            deletions.append(_deletion(value, path, in_list=in_list))
            return _DELETED
        # Below an item of a list Talos deletes nothing: the item could not be identified.
        above = ("[]", *path) if in_list else path
        entries = {key: _without_deletions(item, (*above, str(key)), deletions) for key, item in value.items()}
        rest: Any = {key: item for key, item in entries.items() if item is not _DELETED}
    elif isinstance(value, list):
        items = [_without_deletions(item, path, deletions, in_list=True) for item in value]
        rest = [item for item in items if item is not _DELETED]
    else:
        return value
    return rest if rest or not value else _DELETED


def _deletion(value: Document, path: Path, *, in_list: bool) -> Deletion:
    if value[_MARK] != _VERB:
        raise ParamsError(f"a patch supports only `$patch: delete`, not `$patch: {value[_MARK]}`")
    if path[:1] == ("[]",):
        raise ParamsError(
            f"a patch cannot delete a part of a list's item, as at {'.'.join(path[1:])}",
            remedy="delete the item, and add the new one in the same patch",
        )
    if not in_list:
        return Deletion(path)
    fields = [(key, field) for key, field in value.items() if key != _MARK]
    if not fields:
        raise ParamsError(f"the patch does not say which item of {'.'.join(path)} to delete")
    return Deletion(path, *fields[0])


def _delete(documents: list[Document], deletion: Deletion, identity: tuple[str, str, str]) -> None:
    """Delete one thing from the documents, in place.

    As for Talos, an absent document without a name and an absent field of a present structure are deleted already.

    Raises:
        ParamsError: it is missing, or can never be there.
    """
    for index, document in enumerate(documents):
        if _identity(document) != identity:
            continue
        if not deletion.path:
            if not document.get("kind"):
                raise ParamsError("a patch cannot delete the v1alpha1 document")
            del documents[index]
            return
        if _delete_from(document, deletion) or _is_deleted(document, deletion):
            return
        break
    else:
        if (
            not deletion.path
            and not identity[2]
            and not decoding_problem({"apiVersion": identity[0], "kind": identity[1]}, NEWEST)
        ):
            return
    kind = " ".join(part for part in identity if part) or "v1alpha1"
    raise ParamsError(
        f"the patch deletes {deletion} in {kind}, which is not there",
        remedy="remove the `$patch: delete` from the patch",
    )


def _delete_from(document: Document, deletion: Deletion) -> bool:
    """Whether the thing was there."""
    value: Any = document
    parents: list[tuple[Any, str]] = []
    for key in deletion.path:
        if not isinstance(value, dict) or value.get(key) is None:
            return False
        parents.append((value, key))
        value = value[key]
    holder, last = parents[-1]
    if deletion.field:
        items = value if isinstance(value, list) else []
        index = next((at for at, item in enumerate(items) if _is_item(item, deletion)), None)
        if index is None:
            return False
        del items[index]
        if not items:
            del holder[last]
        return True
    del holder[last]
    if len(parents) > 1 and not holder and parents[-2][1] in _OMITTED_WHEN_EMPTY:
        del parents[-2][0][parents[-2][1]]
    return True


def _is_deleted(document: Document, deletion: Deletion) -> bool:
    """Whether what is absent is a known field of a structure that is there; a map or a list would have it or not."""
    above = deletion.path[:-1]
    holder: Any = document
    for key in above:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if deletion.field or not isinstance(holder, dict) or (above and above[-1] in _OMITTED_WHEN_EMPTY):
        return False
    nested: Any = None
    for key in reversed(deletion.path):
        nested = {key: nested}
    head: Document = {key: document[key] for key in ("apiVersion", "kind", "name") if key in document}
    return not decoding_problem(head | nested, NEWEST)


def _is_item(item: Any, deletion: Deletion) -> bool:
    actual = item.get(deletion.field) if isinstance(item, dict) else None
    return actual is not None and (actual == deletion.value or str(actual) == str(deletion.value))


def _replace(_left: Any, right: Any, _below: Below) -> Any:
    """The right side as a whole."""
    return copy.deepcopy(right)


def _per_key(left: Any, right: Any, _below: Below) -> Any:
    """Key by key, each value as a whole: arguments may be text or lists."""
    return {**left, **copy.deepcopy(right)}


def _url(left: Any, right: Any, _below: Below) -> Any:
    """Part by part: scheme, host with port, path, query, fragment."""
    parts = zip(urlsplit(str(left)), urlsplit(str(right)), strict=True)
    return urlunsplit([new or old for old, new in parts])


def _items(same: Callable[[Any, Any], bool], *, whole: bool = False) -> Rule:
    """A list whose items match by `same`: the right one merges into the left one, or replaces it as a whole."""

    def rule(left: Any, right: Any, below: Below) -> Any:
        if not all(isinstance(item, dict) for item in (*left, *right)):
            raise ParamsError("a list whose items match by a field has an item that is not a map")
        result = list(left)
        for item in right:
            matching = [at for at, old in enumerate(left if whole else result) if same(old, item)]
            if not matching:
                result.append(copy.deepcopy(item))
            elif whole:
                result[matching[-1]] = copy.deepcopy(item)
            else:
                result[matching[0]] = below(result[matching[0]], item, ("*",))
        return result

    return rule


def _keyed(key: str, *, whole: bool = False) -> Rule:
    """A list whose items match by one field."""
    return _items(lambda old, new: old.get(key) == new.get(key), whole=whole)


def _same_interface(old: Any, new: Any) -> bool:
    if new.get("interface"):
        return bool(old.get("interface") == new["interface"])
    return bool(new.get("deviceSelector") and old.get("deviceSelector") == new["deviceSelector"])


_BY_NAME = {"replace": _replace, "per key": _per_key, "url": _url, "interface": _items(_same_interface)}


def _rule(name: str | Mapping[str, str]) -> Rule:
    """The rule that merge_rules.yaml names."""
    if isinstance(name, str):
        return _BY_NAME[name]
    return _keyed(name["key"]) if "key" in name else _keyed(name["whole"], whole=True)


RULES: Mapping[str, Rules] = {
    kind: {tuple(path.split(".")): _rule(name) for path, name in places.items()}
    for kind, places in packaged(__package__, "merge_rules.yaml").items()
}
"""The rules by kind and place; the v1alpha1 document has no kind."""
