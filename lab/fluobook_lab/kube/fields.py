"""Sets of fields, as managedFields records them: who set what.

A field is a path of elements: "f:name" a member, "k:{…}" a list item by its keys, "v:…" an item of a set.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook_lab.kube.objects import Obj

Path = tuple[str, ...]
Fields = frozenset[Path]

_META = ("labels", "annotations", "finalizers", "ownerReferences")


def fields_of(obj: Obj, schema: Obj, *, whole: bool = False) -> Fields:
    """Every field that an object sets, but for the server's own metadata.

    Args:
        obj: the object.
        schema: of its kind.
        whole: also the objects, maps and lists that hold them ("."), which an update owns and an apply does not.
    """
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: obj["metadata"][key] for key in _META if key in obj.get("metadata", {})}
    found = set(_walk(body, schema, (), whole=whole))
    if metadata:
        found.update(_walk(metadata, schemas.named(schemas.OBJECT_META), ("f:metadata",), whole=whole))
    return frozenset(found)


def _walk(value: Any, schema: Obj, path: Path, *, whole: bool) -> Iterator[Path]:
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, item in value.items():
            here = (*path, f"f:{key}")
            found = list(_walk(item, schemas.child(schema, key), here, whole=whole))
            yield from found
            if whole and found not in ([], [here]) and _comes_into_being(schema, key):
                yield (*here, ".")
    elif isinstance(value, list) and schemas.map_keys(schema):
        below = schemas.items(schema)
        for item in value:
            here = (*path, item_element(item, schema))
            yield here
            yield from _walk(item, below, here, whole=whole)
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "set":
        yield from ((*path, f"v:{json.dumps(item)}") for item in value)
    elif path:
        yield path


def _comes_into_being(schema: Obj, key: str) -> bool:
    """Whether a member can be absent: structures that are always there, and what is required, belong to nobody."""
    told = schema.get("properties", {}).get(key, {})
    return key not in schema.get("required", ()) and told.get("default") != {}


def item_element(item: Obj, schema: Obj) -> str:
    """The path element of an item of a keyed list; a key that has a default may be left out."""
    properties = schemas.items(schema).get("properties", {})
    values = {key: item.get(key, properties.get(key, {}).get("default")) for key in schemas.map_keys(schema)}
    named = {key: value for key, value in values.items() if value is not None}
    return "k:" + json.dumps(named, separators=(",", ":"), sort_keys=True)


def to_v1(fields: Iterable[Path]) -> Obj:
    """As a managedFields entry holds them (FieldsV1)."""
    root: Obj = {}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return root


def from_v1(node: Obj, path: Path = ()) -> Iterator[Path]:
    """The fields of a managedFields entry."""
    if path and (not node or ("." in node and path[-1].startswith("k:"))):
        yield path
    elif path and "." in node:
        yield (*path, ".")
    for element, below in node.items():
        if element != ".":
            yield from from_v1(below, (*path, element))


ABSENT = object()
"""What `value_at` finds where nothing is."""


def value_at(obj: Any, path: Path, schema: Obj) -> Any:
    """What stands at a path, None for a list item as such; `ABSENT` where nothing does."""
    if path[-1] == ".":
        return ABSENT if value_at(obj, path[:-1], schema) is ABSENT else None
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            obj = obj.get(rest, ABSENT) if isinstance(obj, dict) else ABSENT
            schema = _below(schema, path, element)
        else:
            obj = next((item for item in _listed(obj) if _is_item(kind, item, element, schema)), ABSENT)
            schema = schemas.items(schema)
        if obj is ABSENT:
            return ABSENT
    return None if path[-1].startswith("k:") else obj


def removed(obj: Any, path: Path, schema: Obj) -> None:
    """Take what stands at a path out of an object, and the members that are left empty by that."""
    if path[-1] == ".":
        return
    element, rest = path[0], path[1:]
    kind, _, key = element.partition(":")
    if kind == "f" and isinstance(obj, dict) and key in obj:
        if rest:
            removed(obj[key], rest, _below(schema, path, element))
        if not rest or obj[key] in ({}, []):
            del obj[key]
    elif kind != "f" and isinstance(obj, list):
        for item in [item for item in obj if _is_item(kind, item, element, schema)]:
            if rest:
                removed(item, rest, schemas.items(schema))
            else:
                obj.remove(item)


def _below(schema: Obj, path: Path, element: str) -> Obj:
    if element == "f:metadata" and element is path[0]:
        return schemas.named(schemas.OBJECT_META)
    return schemas.child(schema, element[2:])


def _listed(obj: Any) -> list[Any]:
    return obj if isinstance(obj, list) else []


def _is_item(kind: str, item: Any, element: str, schema: Obj) -> bool:
    if kind == "v":
        return f"v:{json.dumps(item)}" == element
    return isinstance(item, dict) and item_element(item, schema) == element
