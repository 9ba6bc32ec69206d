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


def explain(error: BaseException, *, system: str, address: str, method: str) -> OutsideError:
    """Our error for one of grpclib's, of the TLS layer's or of the system's.

    `code` is the gRPC status ("ALREADY_EXISTS"), an errno ("ECONNREFUSED"), or one of the constants of this module.
    """
    if isinstance(error, GRPCError):
        return _of_status(error, system, address, method)
    what = f"{system} at {address} did not answer {method}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(
            f"{what}: its certificate is not the expected one",
            system=system,
            detail=error.verify_message,
            code=UNTRUSTED,
            cause="the certificate is of another authority, or not for this address",
        )
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"{what}: TLS failed", system=system, detail=error.reason or str(error), code=REFUSED_US)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{what} in time", system=system, code=OVERDUE)
    code = errno.errorcode.get(error.errno or 0, LOST) if isinstance(error, OSError) else LOST
    return Unreachable(what, system=system, detail=str(error), code=code)


def is_lost_connection(error: Exception) -> bool:
    """Whether the connection ended under the call: a read may be asked again on a new one."""
    return isinstance(error, Unreachable) and error.code in {LOST, "ECONNRESET", "EPIPE"}


def _of_status(error: GRPCError, system: str, address: str, method: str) -> OutsideError:
    kind = MEANING.get(error.status, OutsideError)
    told = error.message or ""
    return kind(
        f"{system} at {address} refused {method}: {told or error.status.name}",
        system=system,
        detail=told,
        code=error.status.name,
    )
