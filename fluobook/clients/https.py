"""TLS to a real host name through another address, verified by the system, a CA file or a pinned fingerprint.

`requests` knows one host per URL. Here the URL keeps the real host, so that certificates, the Host header and messages
name it, while the connection may go to the address that the params map it to: a bastion, a port-forward, the lab.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.certs import where  # type: ignore[attr-defined]
from requests.utils import select_proxy

from fluobook.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0


@dataclass(frozen=True)
class Target:
    """Where to connect, and how the server is verified.

    Args:
        host: the real host, name or address, which the certificate must be for.
        port: the real port.
        address: the (host, port) to connect to instead, or None.
        ca_file: a PEM file of the authorities to trust instead of the system's, or None.
        fingerprint: the SHA-256 of the certificate, hex with or without colons, or None; replaces the CA.
    """

    host: str
    port: int
    address: tuple[str, int] | None = None
    ca_file: str | None = None
    fingerprint: str | None = None

    @property
    def name(self) -> str:
        """The real host and port, and the address if it is another."""
        real = f"{self.host}:{self.port}"
        reached = "{}:{}".format(*self.address) if self.address else real
        return real if reached == real else f"{real} (at {reached})"

    def context(self) -> ssl.SSLContext:
        """A TLS client context; with a pinned fingerprint the chain is not verified, because the pin is stricter.

        Raises:
            OSError: the CA file cannot be read (`ssl.SSLError` if it holds no certificate).
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.ca_file:
            context.load_verify_locations(where())  # beside the system's, which may be empty
        if self.fingerprint:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # urllib3 compares the fingerprint before a byte is sent
        return context


class TargetAdapter(HTTPAdapter):
    """Sends the requests of a session to one target."""

    def __init__(self, target: Target, *, threads: int = 1) -> None:
        self._target = target
        host, port = target.address or (target.host, target.port)
        self._pool = urllib3.HTTPSConnectionPool(
            host,
            port,
            maxsize=threads,
            ssl_context=target.context(),
            server_hostname=target.host,
            assert_hostname=None if target.fingerprint else target.host,
            assert_fingerprint=target.fingerprint,
        )
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """The pool of our target; hosts of redirects and proxied hosts use the default pools."""
        if not self._is_ours(request) or self._by_proxy(request, proxies):
            return super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        return self._pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave our pool's verification as it was built."""
        if conn is not self._pool:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """Name the real host, whatever the address."""
        if self._is_ours(request):
            port = "" if self._target.port == urllib3.connection.port_by_scheme["https"] else f":{self._target.port}"
            request.headers["Host"] = f"{self._target.host}{port}"

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        super().close()

    def _by_proxy(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> bool:
        """A mapped address or a pinned certificate excludes a proxy."""
        return not (self._target.address or self._target.fingerprint) and bool(select_proxy(request.url or "", proxies))

    def _is_ours(self, request: requests.PreparedRequest) -> bool:
        url = urllib3.util.parse_url(request.url or "")
        return (url.host or "").strip("[]") == self._target.host and (url.port or 443) == self._target.port


def fingerprint_seen(target: Target) -> str:
    """The SHA-256 fingerprint of the target's certificate, colons between bytes; "" if it shows none.

    Only for messages: nothing is sent to a host that is not verified.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            closing(socket.create_connection(target.address or (target.host, target.port), CONNECT_TIMEOUT)) as sock,
            context.wrap_socket(sock, server_hostname=target.host) as tls,
        ):
            certificate = tls.getpeercert(binary_form=True) or b""
    except OSError:
        return ""
    return hashlib.sha256(certificate).digest().hex(":").upper()


def open_adapter(target: Target, *, threads: int, system: str, name: str) -> TargetAdapter:
    """The adapter for a target.

    Raises:
        Unreachable: its CA file cannot be read.
    """
    try:
        return TargetAdapter(target, threads=threads)
    except OSError as error:
        raise Unreachable(
            f"the CA file {target.ca_file} of {name} cannot be read: {error.strerror or error}",
            system=system,
            code="CA_FILE",
            facts={"file": target.ca_file or ""},
        ) from None


def unreachable(
    error: Exception, target: Target, *, system: str, name: str, doing: str, facts: Mapping[str, str]
) -> Unreachable:
    """The error for a request without an answer.

    Args:
        error: what `requests`, the TLS layer or the operating system raised.
        target: where the request went.
        system: as in `OutsideError`.
        name: the server's name, for the message: "the Image Factory".
        doing: what was tried, as an infinitive.
        facts: values for the catalogue's commands.
    """
    facts = {"endpoint": "{}:{}".format(*(target.address or (target.host, target.port))), **facts}
    if isinstance(error, requests.exceptions.SSLError):
        detail = f"{error}\nSHA-256 fingerprint seen: {fingerprint_seen(target) or 'none'}"
        message = f"the certificate of {name} at {target.name} is not trusted"
        return Unreachable(message, system=system, detail=detail, code="CERTIFICATE", facts=facts)
    return Unreachable(
        f"{name} does not answer at {target.name}; could not {doing}",
        system=system,
        detail=str(error),
        code="timeout" if isinstance(error, requests.Timeout) else "connection",
        facts=facts,
    )
