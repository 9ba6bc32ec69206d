"""Server-side apply and managedFields: who owns which field, and who may change it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.addresses import SERVICES
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.fields import ABSENT, Fields, Path, fields_of, from_v1, item_element, removed, to_v1, value_at
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource


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
    told = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    return ApiError(409, "Conflict", f"Apply failed with {len(causes)} conflict{plural}: {told}", {"causes": causes})


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
