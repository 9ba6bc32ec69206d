"""Which methods a path takes: 404 where nothing is, 405 where something is that does not take this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import no_such_path, not_allowed

if TYPE_CHECKING:
    from fluobook_lab.kube.paths import Target
    from fluobook_lab.kube.resources import Resource

_VERBS = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_COLLECTION = {"list": "GET", "create": "POST", "deletecollection": "DELETE"}


def check(resource: Resource, target: Target, method: str) -> None:
    """Refuse a method that a path of a resource does not take.

    Raises:
        ApiError: 404 or 405.
    """
    if method not in _allowed(resource, target):
        raise not_allowed()


def _allowed(resource: Resource, target: Target) -> set[str]:
    verbs = resource.discovery["verbs"]
    if target.namespace and not resource.namespaced:
        raise no_such_path()
    if resource.namespaced and not target.namespace:
        if target.name:
            raise no_such_path()
        return {"GET"} if "list" in verbs else {"POST"}
    if not target.name:
        return {method for verb, method in _COLLECTION.items() if verb in verbs}
    if target.subresource:
        verbs = _verbs_below(resource, target.subresource)
        return {method for verb, method in _VERBS.items() if verb in verbs}
    return {method for verb, method in _VERBS.items() if verb in verbs} - {"POST"}


def _verbs_below(resource: Resource, subresource: str) -> list[str]:
    name = subresource.partition("/")[0]
    for told in resource.discovery.get("subresources", ()):
        if told["subresource"] == name and (name == "proxy" or "/" not in subresource):
            return list(told["verbs"])
    raise no_such_path()
