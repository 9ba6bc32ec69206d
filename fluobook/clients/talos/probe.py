"""Who answers at an address: nothing, a node without a configuration, a node of this cluster, or a foreign one.

A probe looks at TLS alone. A Talos node sends HTTP/2 settings as soon as it accepts the client, so a node that sends
them to a client without a certificate is in maintenance mode, whatever its version (F21 to F23).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fluobook.clients import https
from fluobook.clients.rpc import Address, background, translate
from fluobook.machine.pki import KeyPair, load_identity

PROBE_TIMEOUT = 5.0
"""Seconds that a probe waits for a connection and the server's first bytes."""


INVALID_NOW = ("CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID", "CERTIFICATE_WRONG_HOST", "TLS_ALERT_EXPIRED")
"""Codes of errors about certificates of our own authority; it is verified before dates and names are."""


class Mode(Enum):
    """What answers at an address."""

    UNREACHABLE = "unreachable"
    """Nothing answers, or it closes the connection: powered off, booting, rebooting."""
    MAINTENANCE = "maintenance"
    """A node without a configuration."""
    CONFIGURED = "configured"
    """A node of this cluster."""
    FOREIGN = "foreign"
    """Something that requires other certificates than ours: a node of another cluster, which is never wiped."""


@dataclass(frozen=True)
class Probe:
    """What answers, the reason in a few words, and the server key's fingerprint if it showed one."""

    mode: Mode
    detail: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class _Handshake:
    """One TLS connection: whether the server sent HTTP/2 settings, the error that ended it, its certificate."""

    settings_received: bool
    error: BaseException | None = None
    certificate: bytes = b""


def probe(address: Address, *, ca: str = "", identity: KeyPair | None = None, timeout: float = PROBE_TIMEOUT) -> Probe:
    """What answers at an address.

    Args:
        address: the node; its certificate must be good for `address.name`.
        ca: Talos' certificate authority of this cluster, PEM; empty while there is none.
        identity: our client certificate of that authority.
        timeout: seconds for each of at most three connections.

    Raises:
        Unreachable: a certificate of this cluster, the node's or ours, is not valid now or not for this address: a
            clock is wrong, or another of our nodes answers. That says nothing about whose node it is.
    """
    return background().run(_probe(address, mutual(ca, identity) if ca and identity else None, timeout))


async def _probe(address: Address, ours: ssl.SSLContext | None, seconds: float) -> Probe:
    verified = await _handshake(address, ours, seconds) if ours else None
    if verified and verified.error:
        unreachable = translate(verified.error, system="talos", address=address, method="the probe")
        if unreachable.code in INVALID_NOW:
            raise unreachable
    if verified and not _is_refusal(verified.error):
        return _verified(verified)
    unknown = await _handshake(address, unverified(), seconds)
    if ours and verified and _is_refusal(unknown.error):  # unless the node has become ours between the two connections
        verified = await _handshake(address, ours, seconds)
        if not _is_refusal(verified.error):
            return _verified(verified)
    return _unverified(unknown, verified)


def _verified(handshake: _Handshake) -> Probe:
    if handshake.settings_received:
        return Probe(Mode.CONFIGURED, "it has a certificate of this cluster", fingerprint(handshake.certificate))
    return Probe(Mode.UNREACHABLE, _reason(handshake.error))


def _unverified(handshake: _Handshake, before: _Handshake | None) -> Probe:
    """Without a client certificate: HTTP/2 settings mean maintenance mode, a TLS alert another cluster."""
    key = fingerprint(handshake.certificate)
    if handshake.settings_received:
        return Probe(Mode.MAINTENANCE, "it accepts clients without a certificate", key)
    if _is_refusal(handshake.error):
        reason = _reason(before.error) if before else _reason(handshake.error)
        return Probe(Mode.FOREIGN, f"it is not part of this cluster: {reason}", key)
    return Probe(Mode.UNREACHABLE, _reason(handshake.error), key)


def _is_refusal(error: BaseException | None) -> bool:
    """Whether one side refused the other's certificate; a connection that only ended proves nothing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "timed out"
    return https.reason_of(error) if error else "it closed the connection"


async def _handshake(address: Address, context: ssl.SSLContext, seconds: float) -> _Handshake:
    certificate = b""
    try:
        async with asyncio.timeout(seconds):
            opened = asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=address.name)
            reader, writer = await opened
            try:
                certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
                return _Handshake(settings_received=bool(await reader.read(1)), certificate=certificate)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError) as error:
        return _Handshake(settings_received=False, error=error, certificate=certificate)


@dataclass(frozen=True)
class MachineIdentity:
    """Which machine answers.

    `uuid` is that of its SMBIOS table, `macs` are the hardware addresses of its links (lower case), `fingerprint` is
    the SHA-256 of its server key (SPKI) in base64, as its console shows it (empty where TLS itself was verified).
    """

    uuid: str
    macs: tuple[str, ...]
    fingerprint: str

    def differs_from(self, *, uuid: str, mac: str = "") -> tuple[str, ...]:
        """The differences from the expected machine, one sentence each; empty if there is none."""
        differences = [] if same_uuid(self.uuid, uuid) else [f"its SMBIOS uuid is {self.uuid or 'unknown'}, not {uuid}"]
        if mac and mac.lower() not in self.macs:
            differences.append(f"it has no link {mac.lower()} but {', '.join(self.macs) or 'none'}")
        return tuple(differences)


def same_uuid(first: str, second: str) -> bool:
    """Whether two SMBIOS uuids are the same; the first three fields may be in either byte order (SMBIOS 2.6)."""
    try:
        left, right = UUID(first), UUID(second)
    except ValueError:
        return False
    return right in {left, UUID(bytes_le=left.bytes)}


def mutual(ca: str, identity: KeyPair) -> ssl.SSLContext:
    """TLS that verifies the node against `ca` (PEM) and presents our certificate."""
    context = _client()
    context.load_verify_locations(cadata=ca)
    load_identity(context, identity)
    return context


def unverified() -> ssl.SSLContext:
    """TLS for maintenance mode only: the node generates its certificate at boot, so there is no CA to verify it with.

    The caller checks the machine's identity and pins its key before it sends a secret.
    """
    context = _client()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint(certificate: bytes) -> str:
    """The fingerprint of a certificate's key, as a Talos console shows it: SHA-256 of the SPKI, in base64.

    "" if the certificate cannot be read.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context
