"""The options of requests: what they may say, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import subresources
from fluobook_lab.kube.errors import SCHEME, ApiError, bad_request, cause_of
from fluobook_lab.kube.identity import User, Write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from fluobook_lab.kube.bodies import Body
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.paths import Target
    from fluobook_lab.kube.validation import Problem

_KINDS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_POLICIES = ("Foreground", "Background", "Orphan")
_MANAGER_LENGTH = 128


def write_of(request: web.Request, user: User, target: Target, body: Body) -> Write:
    """Who writes how.

    Raises:
        ApiError: 422, an option has a value that there is not.
    """
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    dry = request.query.getall("dryRun", [])
    if request.method == "DELETE" and isinstance(body.value, dict):  # whose body says all of it
        dry = body.value.get("dryRun") or []
    _checked(request, dry)
    sub = target.subresource
    return Write(
        manager=request.query.get("fieldManager") or agent,
        user=user,
        dry_run="All" in dry,
        validation=request.query.get("fieldValidation") or "Warn",
        force=request.query.get("force") == "true",
        subresource=sub if sub in subresources.WRITABLE else "",
        twice=body.twice,
    )


def _checked(request: web.Request, dry: list[str]) -> None:
    if wrong := [value for value in dry if value != "All"]:
        told = ", ".join(f'"{value}"' for value in wrong)
        raise refused(request.method, "dryRun", f'Unsupported value: [{told}]: supported values: "All"')
    validation = request.query.get("fieldValidation", "")
    if validation not in _VALIDATIONS:
        supported = ", ".join(f'"{value}"' for value in _VALIDATIONS)
        what = f'Unsupported value: "{validation}": supported values: {supported}'
        raise refused(request.method, "fieldValidation", what)
    manager = request.query.get("fieldManager", "")
    if len(manager) > _MANAGER_LENGTH:
        raise refused(request.method, "fieldManager", f"Too long: may not be more than {_MANAGER_LENGTH} bytes")
    if "force" in request.query and not _is_apply(request):
        raise refused(request.method, "force", "Forbidden: may not be specified for non-apply patch")


def _is_apply(request: web.Request) -> bool:
    return request.method != "PATCH" or request.content_type == "application/apply-patch+yaml"


def refused(method: str, field: str, what: str) -> ApiError:
    """422: an option that a request lacks, or that has a value that there is not."""
    return invalid(_KINDS.get(method, "ListOptions"), [(field, what)])


def invalid(kind: str, problems: Sequence[Problem]) -> ApiError:
    """422: what is wrong with options of a kind."""
    causes = [{"reason": cause_of(what), "message": what, "field": field} for field, what in problems]
    told = [f"{field}: {what}" for field, what in problems]
    words = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    details = {"group": "meta.k8s.io", "kind": kind, "causes": causes}
    return ApiError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {words}', details)


def delete_options(request: web.Request, body: Any) -> Obj:
    """What a DELETE says: in its body, or in its query if it has none.

    Raises:
        ApiError: 400 or 422, it cannot be understood.
    """
    if isinstance(body, dict):
        options: Obj = dict(body)
        version, kind = options.get("apiVersion", "v1"), options.get("kind", "DeleteOptions")
        if kind != "DeleteOptions":
            raise bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{SCHEME}"')
    else:
        options = {"propagationPolicy": request.query.get("propagationPolicy")}
        if grace := request.query.get("gracePeriodSeconds"):
            options["gracePeriodSeconds"] = number(grace)
    policy = options.get("propagationPolicy")
    if policy not in (None, "", *_POLICIES):
        supported = ", ".join(f'"{name}"' for name in (*_POLICIES, "nil"))
        what = f'Unsupported value: "{policy}": supported values: {supported}'
        raise refused("DELETE", "propagationPolicy", what)
    if policy and options.get("orphanDependents") is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        raise refused("DELETE", "propagationPolicy", f'Invalid value: "{policy}": {why}')
    return options


def number(text: str) -> int:
    """A whole number in a query.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
