"""What answers at an address: nothing, a node without a configuration, one of ours, or somebody else's.

It looks at TLS alone. A Talos node greets with HTTP/2 settings as soon as it is content with the client: so a node that
greets a client without a certificate is in maintenance mode, whatever its version (facts: F21 to F23).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fluobook.clients.loop import background
from fluobook.clients.talos.tls import fingerprint, mutual, unverified

if TYPE_CHECKING:
    from fluobook.clients.rpc import Address
    from fluobook.machine.pki import KeyPair

PATIENCE = 5.0
"""Seconds that a probe waits for a connection and a greeting."""


class Mode(Enum):
    """What a probe found."""

    UNREACHABLE = "unreachable"
    """Nothing answers, or it hangs up: powered off, booting, rebooting."""
    MAINTENANCE = "maintenance"
    """A node without a configuration."""
    CONFIGURED = "configured"
    """A node of this cluster."""
    FOREIGN = "foreign"
    """Something that wants other certificates than ours: a node of another cluster. Never to be wiped."""


@dataclass(frozen=True)
class Probe:
    """What answers, in a few words why, and the server key's fingerprint where one was seen."""

    mode: Mode
    detail: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class _Meeting:
    """How one TLS connection went: greeted or not, the error that ended it, the certificate shown."""

    greeted: bool
    error: BaseException | None = None
    certificate: bytes = b""


def probe(address: Address, *, ca: str = "", identity: KeyPair | None = None, timeout: float = PATIENCE) -> Probe:
    """What answers at an address.

    Args:
        address: the node; its certificate must be good for `address.name`.
        ca: Talos' certificate authority of this cluster, PEM; empty while there is none.
        identity: our client certificate of that authority.
        timeout: seconds for each of at most two connections.
    """
    return background().run(_probe(address, mutual(ca, identity) if ca and identity else None, timeout))


async def _probe(address: Address, ours: ssl.SSLContext | None, patience: float) -> Probe:
    ours_met = await _meet(address, ours, patience) if ours else None
    if ours_met and not _is_verdict(ours_met.error):
        return _verified(ours_met)
    return _unverified(await _meet(address, unverified(), patience), ours_met)


def _verified(meeting: _Meeting) -> Probe:
    if meeting.greeted:
        return Probe(Mode.CONFIGURED, "it has a certificate of this cluster", fingerprint(meeting.certificate))
    return Probe(Mode.UNREACHABLE, _words(meeting.error))


def _unverified(meeting: _Meeting, before: _Meeting | None) -> Probe:
    """Met without a certificate: a greeting means maintenance, a TLS alert that it wants other ones than ours."""
    seen = fingerprint(meeting.certificate) if meeting.certificate else ""
    if meeting.greeted:
        return Probe(Mode.MAINTENANCE, "it greets clients without a certificate", seen)
    if _is_verdict(meeting.error):
        reason = _words(before.error) if before else _words(meeting.error)
        return Probe(Mode.FOREIGN, f"it does not take part in this cluster: {reason}", seen)
    return Probe(Mode.UNREACHABLE, _words(meeting.error), seen)


def _is_verdict(error: BaseException | None) -> bool:
    """Whether one side refused the other's certificate; a connection that merely broke off says nothing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _words(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) if error else "it hung up"


async def _meet(address: Address, context: ssl.SSLContext, patience: float) -> _Meeting:
    certificate = b""
    try:
        async with asyncio.timeout(patience):
            opened = asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=address.name)
            reader, writer = await opened
            try:
                certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
                return _Meeting(greeted=bool(await reader.read(1)), certificate=certificate)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError) as error:
        return _Meeting(greeted=False, error=error, certificate=certificate)
