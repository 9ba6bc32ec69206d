"""Lists, page by page."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from fluobook.lab.kube.errors import bad_request, expired
from fluobook.lab.kube.selectors import field_selector, label_selector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource
    from fluobook.lab.kube.storage import Storage


def selector(namespace: str, query: Mapping[str, str]) -> Callable[[Obj], bool]:
    """The test that namespace and selectors of a request come to.

    Raises:
        ApiError: 400, a selector cannot be parsed.
    """
    by_label = label_selector(query.get("labelSelector", ""))
    by_field = field_selector(query.get("fieldSelector", ""))

    def fits(obj: Obj) -> bool:
        inside = not namespace or obj["metadata"].get("namespace") == namespace
        return inside and by_label(obj) and by_field(obj)

    return fits


def page(storage: Storage, resource: Resource, namespace: str, query: Mapping[str, str]) -> tuple[list[Obj], Obj]:
    """The objects of one page, and the list's metadata with the token of the next.

    Pages after the first show the objects as they are now, not as they were when the first was asked for.

    Raises:
        ApiError: 400 for a bad token or selector, 410 for a token whose time is over.
    """
    fits = selector(namespace, query)
    after, revision = _resume(storage, resource, query.get("continue", ""))
    found = [item for item in storage.scan(resource.store_key, namespace) if list(item[0]) > after and fits(item[1])]
    limit = int(query.get("limit") or 0)
    metadata: Obj = {"resourceVersion": str(revision)}
    if limit and len(found) > limit:
        metadata |= {"continue": _token(revision, list(found[limit - 1][0]))}
        if not (query.get("labelSelector") or query.get("fieldSelector")):  # else nobody can tell
            metadata |= {"remainingItemCount": len(found) - limit}
        found = found[:limit]
    return [{**obj, "apiVersion": resource.api_version} for _, obj in found], metadata


def _token(revision: int, after: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps({"rv": revision, "after": after}).encode()).decode()


def _resume(storage: Storage, resource: Resource, token: str) -> tuple[list[str], int]:
    if not token:
        return [], storage.revision
    try:
        told = json.loads(base64.urlsafe_b64decode(token))
        after, revision = list(told["after"]), int(told["rv"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if storage.is_compacted(resource.store_key, revision):
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You must start a new list without the continue parameter."
        )
    return after, revision
