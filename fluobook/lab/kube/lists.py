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

    Pages after the first show the objects as they are now, not as they were when the first was asked for.

    Raises:
        ApiError: 400 for a bad token or selector, 410 for a token whose time is over.
    """
    fits = selector(resource, namespace, query)
    after, revision = _resume(storage, resource, query.get("continue", ""))
    found = [item for item in storage.scan(resource.store_key, namespace) if list(item[0]) > after and fits(item[1])]
    limit = _number(query.get("limit") or "0")
    _check_version(query.get("resourceVersion", ""))
    metadata: Obj = {"resourceVersion": str(revision)}
    if limit and len(found) > limit:
        metadata |= {"continue": _token(revision, list(found[limit - 1][0]))}
        if not (query.get("labelSelector") or query.get("fieldSelector")):  # else nobody can tell
            metadata |= {"remainingItemCount": len(found) - limit}
        found = found[:limit]
    return [{**obj, "apiVersion": resource.api_version} for _, obj in found], metadata


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _check_version(text: str) -> None:
    if text and not text.isdecimal():
        why = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: resourceVersion: {why}")


def _token(revision: int, after: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps({"rv": revision, "after": after}).encode()).decode()


def _resume(storage: Storage, resource: Resource, token: str) -> tuple[list[str], int]:
    if not token:
        return [], storage.revision
    try:
        told = json.loads(base64.urlsafe_b64decode(token))
        after, revision = list(told["after"]), int(told["rv"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    if storage.is_compacted(resource.store_key, revision):
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You must start a new list without the continue parameter."
        )
    return after, revision
