"""Lists, page by page."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import bad_request, expired
from fluobook_lab.kube.requests import check_list_options, check_reached, number
from fluobook_lab.kube.selectors import field_selector, label_selector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key, Storage


_EVERY = ("metadata.name", "metadata.namespace")
_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"),
        *("status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"),
    ),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase", "name"),
    ("", "secrets"): ("type",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "replicationcontrollers"): ("status.replicas",),
    ("apps", "replicasets"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec.signerName",),
    ("", "events"): (
        *("reason", "reportingComponent", "source", "type", "involvedObject.kind", "involvedObject.namespace"),
        *("involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion"),
        "involvedObject.fieldPath",
    ),
}
"""What lists can be narrowed by, besides name and namespace."""


def _unknown_field(resource: Resource, path: str) -> str:
    if path in (*_EVERY, *_FIELDS.get(resource.store_key, ())):
        return ""
    if resource.custom or resource.store_key in _FIELDS:
        return f"field label not supported: {path}"
    return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def selector(resource: Resource, namespace: str, query: Mapping[str, str]) -> Callable[[Obj], bool]:
    """The test that namespace and selectors of a request come to.

    Raises:
        ApiError: 400, a selector cannot be parsed.
    """
    by_label = label_selector(query.get("labelSelector", ""))
    by_field = field_selector(query.get("fieldSelector", ""), lambda path: _unknown_field(resource, path))

    def fits(obj: Obj) -> bool:
        inside = not namespace or obj["metadata"].get("namespace") == namespace
        return inside and by_label(obj) and by_field(obj)

    return fits


def page(storage: Storage, resource: Resource, namespace: str, query: Mapping[str, str]) -> tuple[list[Obj], Obj]:
    """The objects of one page, and the list's metadata with the token of the next.

    All pages of a list, and lists of an exact version, show the objects as they were then.

    Raises:
        ApiError: 400 or 422 for options that make no sense, 410 for a version whose time is over, 504 for one to come.
    """
    check_list_options(query, watch=False)
    fits = selector(resource, namespace, query)
    after, revision = _begin(storage, query)
    if revision and storage.is_compacted(resource.store_key, revision):
        raise expired("The resourceVersion or the continue token is too old.")
    items = storage.scan(resource.store_key, namespace, revision)
    found = [item for item in items if list(item[0]) > after and fits(item[1])]
    metadata: Obj = {"resourceVersion": str(revision or storage.revision)}
    limit = 0 if query.get("resourceVersion") == "0" else number(query.get("limit") or "0")
    if 0 < limit < len(found):
        metadata |= {"continue": _token(revision or storage.revision, found[limit - 1][0])}
        if not (query.get("labelSelector") or query.get("fieldSelector")):  # else nobody can tell
            metadata |= {"remainingItemCount": len(found) - limit}
        found = found[:limit]
    return [{**obj, "apiVersion": resource.api_version} for _, obj in found], metadata


def _begin(storage: Storage, query: Mapping[str, str]) -> tuple[list[str], int]:
    """After which key a page begins, and the version that it shows; 0 is the newest."""
    asked, token = query.get("resourceVersion", ""), query.get("continue", "")
    if asked and not asked.isdecimal():
        raise bad_request(f'invalid resource version: "{asked}"')
    if token:
        if asked not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        return _resumed(token)
    check_reached(int(asked or "0"), storage.revision)
    paged_at = query.get("limit") and asked not in ("", "0") and not query.get("resourceVersionMatch")
    return [], int(asked) if query.get("resourceVersionMatch") == "Exact" or paged_at else 0


def _token(revision: int, key: Key) -> str:
    told = {"v": "meta.k8s.io/v1", "rv": revision, "start": "/".join(filter(None, key)) + "\0"}
    return base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).decode().rstrip("=")


def _resumed(token: str) -> tuple[list[str], int]:
    try:
        told = dict(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
        namespace, _, name = str(told.get("start", "")).rstrip("\0").rpartition("/")
        version, revision = told.get("v", ""), int(told.get("rv", 0))
    except (binascii.Error, ValueError, TypeError) as error:
        raise bad_request(f"invalid continue token: {error}") from error
    if version != "meta.k8s.io/v1":
        raise bad_request("invalid continue token: it is of another version")
    return [namespace, name], revision
