"""The three patches that are not server-side apply: JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonpatch

from fluobook.lab.kube import schemas
from fluobook.lab.kube.errors import ApiError, unsupported_media
from fluobook.lab.kube.objects import clone

if TYPE_CHECKING:
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource

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
    if media_type == MERGE:
        return merge(clone(obj), body)
    if media_type == STRATEGIC and not resource.custom:
        return strategic(clone(obj), body, resource.schema)
    raise unsupported_media(f"{JSON}, {MERGE}, {APPLY}")


def _json_patched(obj: Obj, body: Any) -> Obj:
    try:
        return jsonpatch.apply_patch(clone(obj), body)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        # The real server does not say which operation it was.
        raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request") from error


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
    elif isinstance(item, list) and "merge" in below.get("x-kubernetes-patch-strategy", ""):
        merged[key] = _merge_list(merged.get(key) or [], item, below)
    else:
        merged[key] = strategic(merged.get(key), item, below)


def _merge_list(current: list[Any], patch: list[Any], schema: Obj) -> list[Any]:
    merge_key = schema.get("x-kubernetes-patch-merge-key")
    if not merge_key:
        return [*current, *(item for item in patch if item not in current)]
    if any(item.get("$patch") == "replace" for item in patch):
        return clone([item for item in patch if "$patch" not in item])
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
