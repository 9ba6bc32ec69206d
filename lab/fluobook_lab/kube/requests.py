"""What a request asks for: the target of its path, its body, and its options, checked as the API server checks them.

Codes, reasons and fields of refusals are the real server's; their wording is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.kube import protobuf
from fluobook_lab.kube.access import User, Write
from fluobook_lab.kube.errors import (
    ApiError,
    bad_request,
    no_such_path,
    not_allowed,
    unsupported_media,
    unsupported_patch,
)
from fluobook_lab.kube.patches import APPLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp import web

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

    Query = Mapping[str, str]

WRITABLE = frozenset({"", "status", "approval", "finalize"})
"""Subresources through which (a part of) the object itself is written."""

_PATH = re.compile(
    r"/(?:api/(?P<core>v[^/]+)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?P<watch>/watch)?(?:/namespaces/(?P<namespace>[^/]+)(?=/(?!status$|finalize$)[^/]))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>.+?))?/?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OPTIONS = {
    "dryRun": {"All"},
    "fieldValidation": {"", "Ignore", "Strict", "Warn"},
    "propagationPolicy": {"", "Foreground", "Background", "Orphan"},
}
"""Options of writes, and their values."""
_ACCEPTED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"


@dataclass(frozen=True)
class Target:
    """What a path names: a resource, and perhaps a namespace, an object and a subresource."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    watched: bool = False

    @property
    def resource(self) -> str:
        """As authorization names it: "pods" or "pods/status"."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural

    def verb(self, method: str, *, watch: bool) -> str:
        """What a method means here."""
        if method in ("GET", "HEAD"):
            return "watch" if watch and (self.watched or not self.name) else "get" if self.name else "list"
        return "deletecollection" if method == "DELETE" and not self.name else _VERBS.get(method, method.lower())

    def narrowed(self, query: Query) -> Query:
        """The query of a watch; one object is watched by a selector of its name."""
        return {**query, "fieldSelector": f"metadata.name={self.name}"} if self.name else query


def parse_path(path: str) -> Target | None:
    """The target of a resource path, None if it is none."""
    match = _PATH.fullmatch(path)
    if not match:
        return None
    return Target(
        group=match["group"] or "",
        version=match["core"] or match["version"],
        plural=match["plural"],
        namespace=match["namespace"] or "",
        name=match["name"] or "",
        subresource=match["subresource"] or "",
        watched=bool(match["watch"]),
    )


def check_target(resource: Resource, target: Target, verb: str) -> None:
    """Refuse a verb that a resource or subresource does not have, or that needs a namespace.

    Raises:
        ApiError: 404, there is no such subresource; 405, the verb is not served.
    """
    verbs = resource.discovery["verbs"]
    if target.subresource:
        name = target.subresource.partition("/")[0]
        served = {entry["subresource"]: entry["verbs"] for entry in resource.discovery.get("subresources", ())}
        if name not in served or name not in ("proxy", target.subresource):
            raise no_such_path()
        verbs = served[name]
    needs_namespace = resource.namespaced and verb not in ("list", "watch") and resource.storable
    if (needs_namespace and not target.namespace and target.name) or (target.namespace and not resource.namespaced):
        raise no_such_path()
    on_object = bool(target.name) or verb == "watch"
    is_misplaced = not target.subresource and on_object == (verb in ("create", "list", "deletecollection"))
    if verb not in verbs or is_misplaced or (needs_namespace and not target.namespace):
        raise not_allowed()


async def read_body(request: web.Request) -> Any:
    """The body of a request as JSON, None without one.

    Raises:
        ApiError: 400, it cannot be read; 415, its media type is not accepted.
    """
    data, media = await request.read(), request.content_type
    if not data and request.method not in ("POST", "PUT", "PATCH"):
        return None
    if data.startswith(protobuf.MAGIC):
        return protobuf.decode(data)
    is_patch = request.method == "PATCH"
    try:
        if "yaml" in media:
            body = _with_string_keys(yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506
        elif "json" in media or media == "application/octet-stream":
            body = json.loads(data)
        else:
            raise unsupported_patch() if is_patch else unsupported_media(_ACCEPTED)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body cannot be decoded: {error}") from error
    if not is_patch and not isinstance(body, dict | None):
        raise bad_request("the body must be an object")
    return {} if body is None and not is_patch else body


def _with_string_keys(value: Any) -> Any:
    """JSON's members have strings as names; YAML reads `yes` as a boolean and 1 as a number."""
    if isinstance(value, dict):
        pairs = value.items()
        return {key if isinstance(key, str) else json.dumps(key): _with_string_keys(item) for key, item in pairs}
    if isinstance(value, list):
        return [_with_string_keys(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def write_of(request: web.Request, user: User, target: Target, body: Any) -> Write:
    """How a request writes.

    Raises:
        ApiError: 422, an option has a value that does not exist.
    """
    dry_run = request.query.getall("dryRun", [])
    if request.method == "DELETE" and isinstance(body, dict):  # the body holds all options then
        dry_run = body.get("dryRun") or []
    if causes := list(_option_problems(request, body)):
        problems = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
        raise ApiError(422, "Invalid", f"options are invalid: {problems}", {"causes": causes})
    return Write(
        manager=request.query.get("fieldManager") or request.headers.get("User-Agent", "unknown").partition("/")[0],
        user=user,
        dry_run="All" in dry_run,
        validation=request.query.get("fieldValidation") or "Warn",
        force=request.query.get("force") == "true",
        subresource=target.subresource if target.subresource in WRITABLE else "",
    )


def _option_problems(request: web.Request, body: Any) -> Iterator[Obj]:
    options = body if request.method == "DELETE" and isinstance(body, dict) else None
    for name, allowed in _OPTIONS.items():
        given = request.query.getall(name, []) if options is None else options.get(name) or []
        if set([given] if isinstance(given, str) else given) - allowed:
            yield {"reason": "FieldValueNotSupported", "message": f"supported are {sorted(allowed)}", "field": name}
    is_apply = request.method == "PATCH" and request.content_type == APPLY
    if is_apply and not request.query.get("fieldManager"):
        yield {"reason": "FieldValueRequired", "message": "is required for apply patch", "field": "fieldManager"}


def delete_options(request: web.Request, body: Any) -> Obj:
    """The options of a DELETE, from its body, or from its query if it has none."""
    if isinstance(body, dict):
        return body
    options: Obj = {"propagationPolicy": request.query.get("propagationPolicy")}
    if grace := request.query.get("gracePeriodSeconds"):
        options["gracePeriodSeconds"] = number(grace)
    return options


def number(text: str) -> int:
    """A whole number in a query.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'"{text}" is not a whole number') from None


def wants_watch(query: Query) -> bool:
    """Whether a request is a watch; every value but a false one counts as true."""
    return query.get("watch", "false").lower() not in ("", "false", "0", "f")


def version_of(text: str) -> int:
    """A resourceVersion as a number, 0 if there is none.

    Raises:
        ApiError: 500, it is no number (the code is the real server's).
    """
    if text and not text.isdecimal():
        raise ApiError(500, "", f'resourceVersion: Invalid value: "{text}"')
    return int(text or "0")
