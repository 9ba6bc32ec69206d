"""The API's own refusals: each one becomes the `Status` object that a real server answers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj


class Named(Protocol):
    """What an error says of a resource type: `fluobook_lab.kube.resources.Resource` has it."""

    @property
    def group(self) -> str:
        """Its API group."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def plural(self) -> str:
        """Its plural name."""

    @property
    def qualified(self) -> str:
        """Its plural name with its group."""


class ApiError(Exception):
    """A refusal of the API server.

    Args:
        code: HTTP status code.
        reason: the machine-readable reason, such as "NotFound".
        message: what is wrong; kubectl shows it after "Error from server (reason): ".
        details: name, group, kind and causes of what was refused.
    """

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self._has_details = details is not None

    def status(self) -> Obj:
        """The `Status` object of the answer."""
        status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "code": self.code}
        status = {key: value for key, value in status.items() if value != "" or key == "message"}
        return status | ({"details": self.details} if self._has_details else {})


def not_found(resource: Named, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    """404: no such resource type or path."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed() -> ApiError:
    """405: something is there, but not for this method."""
    words = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", words, {})


def no_such_group() -> ApiError:
    """404: a group, a version or a path that is not served; a plain text response."""
    return ApiError(404, "", "404 page not found\n")


def outdated(resource: Named, name: str, why: str) -> ApiError:
    """409: a precondition of a deletion does not hold."""
    message = f'Operation cannot be fulfilled on {resource.kind} "{name}": {why}'
    return ApiError(409, "Conflict", message, {**_details(resource, name), "kind": resource.kind})


def already_exists(resource: Named, name: str, *, going: bool = False) -> ApiError:
    """409: the name is taken; `going` while what has it is being deleted."""
    message = f'{"object is being deleted: " if going else ""}{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Named, name: str, why: str = "") -> ApiError:
    """409: another client changed the object in between."""
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def invalid(resource: Named, name: str, causes: list[tuple[str, str]]) -> ApiError:
    """422: the object breaks rules; each cause is a field and what is wrong with it."""
    messages = [f"{field}: {problem}" if field else problem for field, problem in causes]
    words = messages[0] if len(messages) == 1 else "[" + ", ".join(messages) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details = {"name": name, "group": resource.group, "kind": resource.kind}
    details = {key: value for key, value in details.items() if value}
    listed = [{"reason": cause_of(problem), "message": problem, "field": field} for field, problem in causes]
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {words}', details | {"causes": listed})


def forbidden(resource: Named, name: str, why: str) -> ApiError:
    """403: an admission rule refuses the object."""
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _details(resource, name))


def bad_request(message: str) -> ApiError:
    """400: the request itself cannot be understood."""
    return ApiError(400, "BadRequest", message)


def unreachable_service(why: str) -> ApiError:
    """503: the API server did not reach what it was to pass a request on to."""
    return ApiError(503, "ServiceUnavailable", f"error trying to reach service: {why}")


def unsupported_media(accepted: str) -> ApiError:
    """415: the body is of a type that the server does not take here."""
    words = "the body of the request was in an unknown format - accepted media types include: " + accepted
    return ApiError(415, "UnsupportedMediaType", words)


def unsupported_patch() -> ApiError:
    """415: no patch is of that type."""
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def expired(message: str) -> ApiError:
    """410: the resourceVersion or continue token is too old; list again."""
    return ApiError(410, "Expired", message)


def unauthorized() -> ApiError:
    """401: no credentials, or wrong ones."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def _details(resource: Named, name: str) -> dict[str, Any]:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural}


def cause_of(problem: str) -> str:
    """The machine-readable reason of a cause, by how its words begin."""
    reasons = {"Required value": "FieldValueRequired", "Unsupported value": "FieldValueNotSupported"}
    reasons |= {"Forbidden": "FieldValueForbidden", "Too long": "FieldValueTooLong"}
    if " in body must be of type " in problem:
        return "FieldValueTypeInvalid"
    return next((reason for begin, reason in reasons.items() if problem.startswith(begin)), "FieldValueInvalid")
