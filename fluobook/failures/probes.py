"""Probes that tell similar causes of an unreachable endpoint apart, with one connection when the error is shown."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from typing import TYPE_CHECKING

from fluobook.clients.https import NO_CONNECTION
from fluobook.errors import OutsideError, Unreachable

if TYPE_CHECKING:
    from cryptography import x509

DEADLINE = 2.0
"""Seconds for each connection of a probe."""
USUAL_PORTS = {"proxmox": 8006, "kubernetes": 6443, "talos": 50000, "factory": 443}
"""The port on which each system listens with TLS; other systems are probed without TLS."""


def probe(error: OutsideError, *, deadline: float = DEADLINE) -> str:
    """The cause of an unreachable endpoint as a connection shows it now; "" for other errors.

    A server that answered, however wrongly, is not probed: its answer says more.

    Args:
        error: the error; its fact `endpoint` is the host:port that was connected to.
        deadline: seconds for each of at most two connections.
    """
    host, _, port = error.facts.get("endpoint", "").rpartition(":")
    about_connection = error.code in NO_CONNECTION or error.code.startswith("CERTIFICATE")
    if not isinstance(error, Unreachable) or not about_connection or not host or not port.isdigit():
        return ""
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), deadline) as connection:
            return _tls(connection, host, port, error)
    except socket.gaierror:
        return f"The name {host} cannot be resolved."
    except ConnectionRefusedError:
        return f"{host} is up, but nothing listens on port {port}.{_usual_port(host, port, error.system, deadline)}"
    except TimeoutError:
        cause = "it is down, or a firewall drops packets"
        return f"{host}:{port} does not accept a connection within {deadline:g} s: {cause}."
    except OSError as failure:
        return f"{host}:{port} cannot be reached: {failure.strerror or failure}."


def _usual_port(host: str, port: str, system: str, deadline: float) -> str:
    usual = USUAL_PORTS.get(system)
    if usual is None or str(usual) == port:
        return ""
    try:
        socket.create_connection((host, usual), deadline).close()
    except OSError:
        return ""
    return f" Port {usual}, which is the usual one, accepts connections."


def _tls(connection: socket.socket, host: str, port: str, error: OutsideError) -> str:
    temporary = f"{host}:{port} accepts connections now; the failure was temporary."
    if error.system not in USUAL_PORTS:
        return temporary
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; the certificate is only shown
    try:
        with context.wrap_socket(connection, server_hostname=host) as tls:
            der = tls.getpeercert(binary_form=True) or b""
    except ssl.SSLError:
        return f"{host}:{port} accepts connections, but does not speak TLS."
    if not error.code.startswith("CERTIFICATE") or not der:
        return temporary
    from cryptography import x509  # noqa: PLC0415  (only for this message)

    return describe(x509.load_der_x509_certificate(der), dt.datetime.now(dt.UTC))


def describe(certificate: x509.Certificate, now: dt.datetime) -> str:
    """Why a certificate may not be trusted: its validity, else its subject and issuer."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        return f"The certificate expired on {end:%Y-%m-%d}."
    if now < begin:
        return f"The certificate is valid from {begin:%Y-%m-%d %H:%M} UTC; the clock here shows {now:%Y-%m-%d %H:%M}."
    subject, issuer = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
    return (
        f"The server shows a certificate of {subject or 'an unnamed subject'}, issued by {issuer or 'an unnamed CA'}."
    )
