"""Server-side apply and managedFields: who owns which field, and who may change it.

A field is a path of elements: "f:name" a member, "k:{…}" a list item by its keys, "v:…" an item of a set.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import SERVICES, clone, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource


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
    paths = set(_walk(body, schema, (), whole=whole))
    if metadata:
        paths.update(_walk(metadata, schemas.named(schemas.OBJECT_META), ("f:metadata",), whole=whole))
    return frozenset(paths)


def _walk(value: Any, schema: Obj, path: Path, *, whole: bool) -> Iterator[Path]:
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, item in value.items():
            here = (*path, f"f:{key}")
            paths = list(_walk(item, schemas.child(schema, key), here, whole=whole))
            yield from paths
            if whole and paths not in ([], [here]) and _comes_into_being(schema, key):
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
    """Whether a member can be absent: structures that are always there, and what is required, have no owner."""
    member = schema.get("properties", {}).get(key, {})
    return key not in schema.get("required", ()) and member.get("default") != {}


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
    """The value at a path, None for a list item as such; `ABSENT` where nothing does."""
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
    """Remove the value at a path from an object, and the members that become empty."""
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


_ALLOCATED = {("f:spec", f"f:{name}") for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")}
"""What the server gives a Service after its fields were counted."""


@dataclass(frozen=True)
class Manager:
    """Who writes: name, "Apply" or "Update", and the subresource written through."""

    name: str
    operation: str
    subresource: str = ""

    @classmethod
    def of(cls, entry: Obj) -> Manager:
        """The manager of a managedFields entry."""
        return cls(entry["manager"], entry["operation"], entry.get("subresource", ""))


def applied(resource: Resource, live: Obj, intent: Obj, manager: Manager, *, force: bool) -> Obj:
    """The live object with an applied configuration merged in, and managedFields brought up to date.

    Raises:
        ApiError: 409, another manager owns a field with another value, and `force` is not set.
    """
    schema, sets = resource.schema, _sets(live)
    mine, before = fields_of(intent, schema), sets.pop(manager, frozenset())
    changed = frozenset(p for p in _changed(live, intent, mine, schema) if value_at(intent, p, schema) != {})
    conflicts = [(owner, path) for owner, fields in sets.items() for path in sorted(fields & changed)]
    if conflicts and not force:
        raise _conflict_error(resource, conflicts)
    merged = _merged(clone(live), _body(intent), schema)
    merged["metadata"] = _metadata(live, intent)
    others = frozenset[Path]().union(*sets.values())
    for path in sorted(before - mine - others, key=len):  # an item before its fields: by some of these it is found
        if not any(other[: len(path)] == path for other in others):
            removed(merged, path, schema)
    taken = {path for _, path in conflicts}
    sets = {owner: fields - taken for owner, fields in sets.items()}
    sets[manager] = mine
    _record(resource, live, merged, sets)
    return merged


def updated(resource: Resource, old: Obj | None, new: Obj, manager: Manager) -> None:
    """Bring managedFields of `new` up to date after a create, update or patch; changes `new`."""
    if old and new["metadata"].get("managedFields") in ([], [{}]):
        new["metadata"].pop("managedFields")  # how a client says that nobody owns anything any more
        return
    schema, sets = resource.schema, _sets(old or {"metadata": {}})
    now = fields_of(new, schema, whole=True)
    if manager.subresource != "status" and "status" in resource.subresources:
        now = frozenset(path for path in now if path[0] != "f:status")
    if old is None and resource.store_key == SERVICES:
        now = frozenset(path for path in now if path[:2] not in _ALLOCATED)
    changed = _changed(old, new, now, schema) if old else now
    gone = {path for fields in sets.values() for path in fields if value_at(new, path, schema) is ABSENT}
    sets = {owner: fields - changed - gone for owner, fields in sets.items()}
    sets[manager] = sets.get(manager, frozenset()) | changed
    _record(resource, old, new, sets)


def _changed(old: Obj, new: Obj, paths: Fields, schema: Obj) -> Fields:
    return frozenset(
        path for path in paths if _valued(value_at(old, path, schema)) != _valued(value_at(new, path, schema))
    )


def _valued(value: Any) -> Any:
    """A value for comparison: an empty map is as good as none."""
    return ABSENT if value == {} else value


def _conflict_error(resource: Resource, conflicts: list[tuple[Manager, Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": _conflict_words(resource, owner), "field": field_name(path)}
        for owner, path in conflicts
    ]
    fields = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    return ApiError(409, "Conflict", f"Apply failed with {len(causes)} conflict{plural}: {fields}", {"causes": causes})


def _conflict_words(resource: Resource, owner: Manager) -> str:
    using = "" if owner.operation == "Apply" else f" using {resource.api_version}"
    sub = f' with subresource "{owner.subresource}"' if owner.subresource else ""
    return f'conflict with "{owner.name}"{sub}{using}'


def field_name(path: Path) -> str:
    """A path as messages show it: `.spec.containers[name="web"].image`."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        text += f".{rest}" if kind == "f" else f"[{_item_name(kind, rest)}]"
    return text


def _item_name(kind: str, rest: str) -> str:
    if kind == "v":
        return f"={rest}"
    return ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items())


def _body(intent: Obj) -> Obj:
    return {key: value for key, value in intent.items() if key != "metadata"}


def _metadata(live: Obj, intent: Obj) -> Obj:
    wanted = {key: value for key, value in intent["metadata"].items() if key in ("labels", "annotations")}
    merged = _merged(clone(live["metadata"]), wanted, schemas.named(schemas.OBJECT_META))
    for key in ("finalizers", "ownerReferences"):
        listed = clone(merged.get(key) or [])
        listed += [item for item in intent["metadata"].get(key) or [] if item not in listed]
        if listed:
            merged[key] = listed
    return merged


def _merged(value: Any, intent: Any, schema: Obj) -> Any:
    if isinstance(intent, dict) and isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        merged = dict(value)
        for key, item in intent.items():
            merged[key] = _merged(value.get(key), item, schemas.child(schema, key))
        return merged
    if isinstance(intent, list) and isinstance(value, list) and schemas.map_keys(schema):
        return _merged_items(value, intent, schema)
    if isinstance(intent, list) and isinstance(value, list) and schema.get("x-kubernetes-list-type") == "set":
        return [*value, *(item for item in intent if item not in value)]
    return clone(intent)


def _merged_items(value: list[Obj], intent: list[Obj], schema: Obj) -> list[Obj]:
    below, merged = schemas.items(schema), list(value)
    at = {item_element(item, schema): index for index, item in enumerate(merged)}
    for item in intent:
        element = item_element(item, schema)
        if element in at:
            merged[at[element]] = _merged(merged[at[element]], item, below)
        else:
            merged.append(clone(item))
    return merged


def _sets(obj: Obj) -> dict[Manager, Fields]:
    entries = obj["metadata"].get("managedFields") or []
    return {Manager.of(entry): frozenset(from_v1(entry["fieldsV1"])) for entry in entries}


def _record(resource: Resource, old: Obj | None, new: Obj, sets: dict[Manager, Fields]) -> None:
    """Write the sets into `new`; an entry whose fields are the same keeps its time."""
    before = {Manager.of(e): e for e in (old or {"metadata": {}})["metadata"].get("managedFields") or []}
    entries: list[Obj] = []
    for manager, fields in sets.items():
        v1, last = to_v1(fields), before.get(manager)
        if fields:
            same = last is not None and last["fieldsV1"] == v1
            entries.append(last if same and last else _entry(resource, manager, v1))
    entries.sort(key=lambda e: (e["operation"], e["time"], e["manager"], e["apiVersion"], e.get("subresource", "")))
    if entries:
        new["metadata"]["managedFields"] = entries
    else:
        new["metadata"].pop("managedFields", None)


def _entry(resource: Resource, manager: Manager, v1: Obj) -> Obj:
    entry: Obj = {"manager": manager.name, "operation": manager.operation, "apiVersion": resource.api_version}
    entry |= {"time": timestamp(), "fieldsType": "FieldsV1", "fieldsV1": v1}
    return entry | ({"subresource": manager.subresource} if manager.subresource else {})
