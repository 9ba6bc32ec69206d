"""What a failed gRPC call means, in our own error tree."""

from __future__ import annotations

import errno
import ssl

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, Unreachable

MEANING: dict[Status, type[OutsideError]] = {
    Status.UNAVAILABLE: Unreachable,
    Status.DEADLINE_EXCEEDED: Unreachable,
    Status.UNAUTHENTICATED: AccessDenied,
    Status.PERMISSION_DENIED: AccessDenied,
    Status.NOT_FOUND: NotFound,
    Status.ALREADY_EXISTS: Conflict,
    Status.ABORTED: Conflict,
    Status.INVALID_ARGUMENT: Rejected,
    Status.OUT_OF_RANGE: Rejected,
}
"""Which error a gRPC status becomes; every other one is an `OutsideError`, told by its `code`."""

LOST = "CONNECTION_LOST"
UNTRUSTED = "CERTIFICATE"
REFUSED_US = "TLS_ALERT"
OVERDUE = Status.DEADLINE_EXCEEDED.name


CAUSES: dict[str, tuple[str, str]] = {
    "ECONNREFUSED": (
        "nothing listens there: it is powered off, or still starting",
        "look at the machine's console, then run this again",
    ),
    "EHOSTUNREACH": ("there is no way to that host from here", "check the network, or map it under platform.endpoints"),
    LOST: ("it hung up: it restarts, or wants another certificate than ours", "run this again in a moment"),
    OVERDUE: (
        "it is down, or something on the way drops its packets",
        "check the network and its firewalls, or map it under platform.endpoints",
    ),
    UNTRUSTED: (
        "the certificate is of another authority, or not for this address",
        "see that the address belongs to this cluster's machine before anything else is done",
    ),
    REFUSED_US: (
        "it wants a certificate of another authority than ours",
        "see that the secrets bundle is this cluster's own",
    ),
    Status.PERMISSION_DENIED.name: (
        "the role in our certificate does not allow it",
        "use a certificate with the role that the call needs; changes need os:admin",
    ),
    Status.FAILED_PRECONDITION.name: ("it is not ready for this yet", "run this again in a moment"),
    Status.UNIMPLEMENTED.name: ("this node, in this mode or version, has no such call", ""),
}
"""The likely cause and the remedy, by the error's code."""


def explain(error: BaseException, *, system: str, address: str, method: str) -> OutsideError:
    """Our error for one of grpclib's, of the TLS layer's or of the system's.

    `code` is the gRPC status ("ALREADY_EXISTS"), an errno ("ECONNREFUSED"), or one of the constants of this module.
    """
    if isinstance(error, GRPCError):
        kind, code, detail = MEANING.get(error.status, OutsideError), error.status.name, error.message or ""
        message = f"{system} at {address} refused {method}: {detail or code}"
    else:
        kind, (code, detail) = Unreachable, _broken(error)
        message = f"{system} at {address} did not answer {method}"
    cause, remedy = CAUSES.get(code, ("", ""))
    return kind(message, system=system, detail=detail, code=code, cause=cause, remedy=remedy)


def _broken(error: BaseException) -> tuple[str, str]:
    """The code of an error that is no answer, and what it says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UNTRUSTED, error.verify_message
    if isinstance(error, ssl.SSLError):
        return REFUSED_US, getattr(error, "reason", "") or str(error)
    if isinstance(error, TimeoutError):
        return OVERDUE, ""
    code = errno.errorcode.get(error.errno or 0, LOST) if isinstance(error, OSError) else LOST
    return (LOST if code in {"ECONNRESET", "EPIPE"} else code), str(error)


def is_lost_connection(error: Exception) -> bool:
    """Whether the connection ended under the call: a read may be asked again on a new one."""
    return isinstance(error, Unreachable) and error.code == LOST
