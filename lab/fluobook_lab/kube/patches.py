"""The three patches that are not server-side apply: JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.kubernetes import json_patch
from fluobook_lab.kube import schemas
from fluobook_lab.kube.errors import ApiError, bad_request, unsupported_media, unsupported_patch
from fluobook_lab.kube.objects import clone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def patched(resource: Resource, obj: Obj, body: Any, media_type: str) -> Obj:
    """The object with a patch applied; the object itself stays as it is.

    Raises:
        ApiError: 422, the patch does not fit; 415, the kind does not take patches of that type.
    """
    if media_type == JSON:
        return _json_patched(obj, body)
    if media_type not in (MERGE, STRATEGIC):
        raise unsupported_patch()
    if media_type == STRATEGIC and resource.custom:
        raise unsupported_media(f"{JSON}, {MERGE}, {APPLY}")
    if not isinstance(body, dict) and (body is not None or media_type == MERGE):
        raise bad_request("a patch of this type must be an object")
    return merge(clone(obj), body) if media_type == MERGE else strategic(clone(obj), body or {}, resource.schema)


def _json_patched(obj: Obj, body: Any) -> Obj:
    if not isinstance(body, list) or not all(isinstance(operation, dict) for operation in body):
        raise bad_request("a JSON patch must be a list of operations")
    try:
        return apply_leniently(obj, body)
    except json_patch.PatchError as error:
        raise ApiError(422, "Invalid", f"the JSON patch does not apply: {error}", {}) from error


def apply_leniently(data: Any, operations: Iterable[json_patch.Operation]) -> Any:
    """As the API server patches: `replace` adds a member that is missing, `test` with null accepts one.

    Raises:
        PatchError: an operation does not match.
    """
    for given in operations:
        operation = {**given}
        path = str(operation.get("path", ""))
        path = operation["path"] = path if path.startswith("/") or not path else "/" + path.partition("/")[2]
        parent = json_patch.value_at(data, path.rpartition("/")[0])
        if path and isinstance(parent, dict) and json_patch.steps(path)[-1] not in parent:
            if operation.get("op") == "test" and operation.get("value", "") is None:
                continue
            if operation.get("op") == "replace":
                operation["op"] = "add"
        data = dict(json_patch.apply(data, [operation]))
    return data


def merge(value: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return clone(patch)
    merged = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), item)
    return merged


def strategic(value: Any, patch: Any, schema: Obj) -> Any:
    """Kubernetes' own merge: lists that have a merge key in the schema merge item by item."""
    if not isinstance(patch, dict):
        return clone(patch)
    if patch.get("$patch") == "replace":
        return clone({key: item for key, item in patch.items() if key != "$patch"})
    if patch.get("$patch") == "delete":
        return {}
    if "$patch" in patch:
        raise ApiError(500, "", f"unknown patch type: {patch['$patch']}")
    merged = dict(value) if isinstance(value, dict) else {}
    if keep := patch.get("$retainKeys"):
        merged = {key: item for key, item in merged.items() if key in keep}
    for key, item in patch.items():
        _merge_member(merged, key, item, schema)
    for key, order in patch.items():
        name = key.removeprefix("$setElementOrder/")
        if name != key and name in merged:
            merged[name] = _ordered(merged[name], order, schemas.child(schema, name))
    return merged


def _merge_member(merged: Obj, key: str, item: Any, schema: Obj) -> None:
    if key.startswith("$deleteFromPrimitiveList/"):
        name = key.partition("/")[2]
        merged[name] = [value for value in merged.get(name) or [] if value not in item]
        return
    if key.startswith("$"):
        return
    below = schemas.child(schema, key)
    if item is None:
        merged.pop(key, None)
    elif isinstance(item, dict) and key not in merged and "$patch" in item:
        return  # a directive for what is not there goes, with all that stands beside it
    elif isinstance(item, list) and "merge" in below.get("x-kubernetes-patch-strategy", ""):
        merged[key] = _merge_list(merged.get(key) or [], item, below)
    else:
        merged[key] = strategic(merged.get(key), item, below)


def _merge_list(current: list[Any], patch: list[Any], schema: Obj) -> list[Any]:
    merge_key = schema.get("x-kubernetes-patch-merge-key")
    if not merge_key:
        return [*(item for item in patch if item not in current), *current]
    if any(item.get("$patch") == "replace" for item in patch):
        return clone([item for item in patch if "$patch" not in item])
    if any(merge_key not in item for item in patch):
        raise ApiError(500, "", f"an item does not contain declared merge key: {merge_key}")
    merged, added, below = list(current), [], schemas.items(schema)
    for item in patch:
        at = next((i for i, old in enumerate(merged) if old.get(merge_key) == item.get(merge_key)), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(merge_key) != item.get(merge_key)]
        elif at is None:
            added.append(strategic({}, item, below))
        else:
            merged[at] = strategic(merged[at], item, below)
    return [*added, *merged]


def _ordered(items: list[Any], order: list[Any] | None, schema: Obj) -> list[Any]:
    """The items in the order that `$setElementOrder` asks for; those that it does not name come last."""
    if order is None:
        return items
    merge_key = schema.get("x-kubernetes-patch-merge-key")
    wanted = [item.get(merge_key) if merge_key else item for item in order]

    def place(item: Any) -> int:
        name = item.get(merge_key) if merge_key else item
        return wanted.index(name) if name in wanted else len(wanted)

    return sorted(items, key=place)
