"""From what the `kubernetes` package raises to the errors of fluobook: each says what happened and what helps."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import urllib3.exceptions

from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = "kubernetes"

_KINDS: dict[int, type[OutsideError]] = {
    HTTPStatus.BAD_REQUEST: Rejected,
    HTTPStatus.UNAUTHORIZED: AccessDenied,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.METHOD_NOT_ALLOWED: Rejected,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Rejected,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Rejected,
    HTTPStatus.UNPROCESSABLE_ENTITY: Rejected,
    HTTPStatus.TOO_MANY_REQUESTS: Unreachable,
    HTTPStatus.BAD_GATEWAY: Unreachable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unreachable,
    HTTPStatus.GATEWAY_TIMEOUT: Unreachable,
}

_CAUSES: dict[type[OutsideError], tuple[str, str]] = {
    AccessDenied: ("the kubeconfig is of another cluster, or its user lacks the right", "fluobook kubeconfig"),
    Conflict: ("somebody else made, changed or owns it", "kubectl get … --show-managed-fields -o yaml"),
    NotFound: ("it was deleted, or what makes it has not run yet", "fluobook plan"),
    Rejected: ("it breaks a rule of the API or of an admission plugin", "correct the field that is named"),
    Unreachable: ("the API server is starting, overloaded or away", "try again in a moment"),
}

_TLS = ("SSLCertVerificationError", "SSLError", "CertificateError")
_CONNECTING = (
    urllib3.exceptions.HTTPError,
    ssl.SSLError,
    OSError,
)


@contextmanager
def translated(what: str, where: str) -> Iterator[None]:
    """Turn foreign exceptions into ours.

    Args:
        what: what was tried, as an infinitive: "apply Deployment web".
        where: host and port of the API.

    Raises:
        OutsideError: one of its kinds, by what the API answered.
    """
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    try:
        yield
    except ApiException as error:
        raise refused(what, error.status or 0, error.body) from error
    except _CONNECTING as error:
        raise unreachable(what, where, error) from error


def refused(what: str, code: int, body: Any) -> OutsideError:
    """The error for an answer of the API.

    Args:
        what: what was tried.
        code: HTTP status.
        body: the answer: a Status object as JSON, or text.
    """
    status = _status(body)
    kind = _KINDS.get(code, OutsideError)
    message = status.get("message") or str(body or f"HTTP {code}")
    cause, remedy = _CAUSES.get(kind, ("", "kubectl get --raw /readyz?verbose"))
    return kind(
        f"cannot {what}: {message.splitlines()[0]}",
        system=SYSTEM,
        detail=message if "\n" in message else "",
        code=status.get("reason") or str(code),
        cause=cause,
        remedy=remedy,
    )


def unreachable(what: str, where: str, error: Exception) -> Unreachable:
    """The error for no answer at all; TLS failures say which."""
    reason = _reason(error)
    if isinstance(reason, ssl.SSLError):
        cause = "another cluster answers there, or the kubeconfig is of another one (its CA does not fit)"
        remedy = "compare the address with the params, then: fluobook kubeconfig"
    else:
        cause = "the API server is not up yet, or the address is wrong"
        remedy = "fluobook doctor"
    return Unreachable(
        f"cannot {what}: the Kubernetes API at {where} does not answer",
        system=SYSTEM,
        detail=str(reason),
        code=type(reason).__name__,
        cause=cause,
        remedy=remedy,
    )


def is_busy(error: Exception) -> bool:
    """Whether a read is worth another attempt: the server answered that it is busy, or broke off."""
    if not isinstance(error, Unreachable):
        return False
    return error.code not in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", *_TLS)


def _reason(error: BaseException) -> BaseException:
    """The innermost reason: urllib3 wraps its errors in retries."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    if isinstance(error, ssl.SSLError) or not isinstance(inner, BaseException):
        return error
    return _reason(inner)


def _status(body: Any) -> dict[str, Any]:
    try:
        found = json.loads(body) if isinstance(body, str | bytes) else body
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
