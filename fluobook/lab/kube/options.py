"""The options of requests: what they may say, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.lab.kube import subresources
from fluobook.lab.kube.errors import ApiError
from fluobook.lab.kube.identity import User, Write

if TYPE_CHECKING:
    from aiohttp import web

    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.paths import Target

_KINDS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")


def write_of(request: web.Request, user: User, target: Target, body: Any) -> Write:
    """Who writes how.

    Raises:
        ApiError: 422, an option has a value that there is not.
    """
    options = body if isinstance(body, dict) and body.get("kind") == "DeleteOptions" else {}
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    dry = [*request.query.getall("dryRun", ()), *(options.get("dryRun") or ())]
    _checked(request, dry)
    sub = target.subresource
    return Write(
        manager=request.query.get("fieldManager") or agent,
        user=user,
        dry_run="All" in dry,
        validation=request.query.get("fieldValidation") or "Warn",
        force=request.query.get("force") == "true",
        subresource=sub if sub in subresources.WRITABLE else "",
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


def refused(method: str, field: str, what: str) -> ApiError:
    """422: an option that a request lacks, or that has a value that there is not."""
    kind = _KINDS.get(method, "ListOptions")
    reason = "FieldValueRequired" if what.startswith("Required") else "FieldValueNotSupported"
    cause = {"reason": reason, "message": what, "field": field}
    details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause]}
    return ApiError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {field}: {what}', details)


def delete_options(request: web.Request, body: Any) -> Obj:
    """What a DELETE says in its body and its query."""
    options: Obj = dict(body) if isinstance(body, dict) else {}
    if policy := request.query.get("propagationPolicy"):
        options.setdefault("propagationPolicy", policy)
    if grace := request.query.get("gracePeriodSeconds"):
        options.setdefault("gracePeriodSeconds", int(grace))
    return options
