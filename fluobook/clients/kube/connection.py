"""The way to the Kubernetes API: a kubeconfig's endpoint and identity; its key never stays in a file."""

from __future__ import annotations

import base64
import binascii
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3

from fluobook.errors import FluobookError
from fluobook.machine.pki import KeyPair, load_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import ApiClient

AGENT = "fluobook"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
CONNECTIONS = 16
"""Connections kept open; more threads than that open more, which are closed after use."""


@dataclass(frozen=True)
class Endpoint:
    """What a kubeconfig says about one cluster and one user.

    Args:
        host: the API's real host, as params and certificates name it.
        port: its real port.
        server_name: the name that the API's certificate must have.
        ca: the cluster's CA, PEM.
        identity: the client certificate and its key; None for a token.
        token: a bearer token; "" for a certificate.
        address: the (host, port) to connect to instead.
    """

    host: str
    port: int
    server_name: str
    ca: str = field(repr=False)
    identity: KeyPair | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    address: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        """Where to connect to."""
        host, port = self.address or (self.host, self.port)
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    @property
    def name(self) -> str:
        """The real host and port, for messages; and the address, if it is another."""
        real = f"{self.host}:{self.port}"
        return f"{real} (at {self.address[0]}:{self.address[1]})" if self.address else real


def endpoint(kubeconfig: Mapping[str, Any], *, address: tuple[str, int] | None = None) -> Endpoint:
    """Read the current context of a kubeconfig.

    Args:
        kubeconfig: its content.
        address: where to connect to instead of `server`; the certificate is still held against the real name.

    Raises:
        FluobookError: it has no current context, or lacks the CA or the user's identity.
    """
    try:
        context = _named(kubeconfig, "contexts", "context", kubeconfig["current-context"])
        cluster = _named(kubeconfig, "clusters", "cluster", context["cluster"])
        user = _named(kubeconfig, "users", "user", context["user"])
        server = urlsplit(cluster["server"])
        host, port = server.hostname or "", server.port or 443
        ca = base64.b64decode(cluster["certificate-authority-data"], validate=True).decode()
        identity = _identity(user)
    except (KeyError, StopIteration, TypeError, binascii.Error, UnicodeDecodeError) as error:
        what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else "a part that cannot be read"
        remedy = "write it again: fluobook kubeconfig"
        raise FluobookError(f"the kubeconfig has {what}", cause="it is not one of ours", remedy=remedy) from None
    return Endpoint(
        host=host,
        port=port,
        server_name=cluster.get("tls-server-name") or host,
        ca=ca,
        identity=identity,
        token=user.get("token", ""),
        address=None if address == (host, port) else address,
    )


def _named(kubeconfig: Mapping[str, Any], section: str, part: str, name: str) -> dict[str, Any]:
    return next(entry[part] for entry in kubeconfig[section] if entry["name"] == name)


def _identity(user: Mapping[str, Any]) -> KeyPair | None:
    if user.get("token"):
        return None
    pair = {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
    return KeyPair.from_base64(pair)


def api_client(at: Endpoint) -> ApiClient:
    """A client of the `kubernetes` package; its TLS context holds the identity, so no key file stays behind.

    Raises:
        FluobookError: the certificates cannot be used.
    """
    from kubernetes.client import ApiClient, Configuration  # noqa: PLC0415  (takes 0.2 s)

    configuration = Configuration()
    configuration.host = at.url
    configuration.tls_server_name = at.server_name
    configuration.api_key = {"BearerToken": at.token} if at.token else {}
    configuration.api_key_prefix = {"BearerToken": "Bearer"} if at.token else {}
    configuration.proxy = None
    client = ApiClient(configuration)
    client.user_agent = AGENT
    client.rest_client.pool_manager = urllib3.PoolManager(
        num_pools=2,
        maxsize=CONNECTIONS,
        ssl_context=tls_context(at),
        server_hostname=at.server_name,
        assert_hostname=at.server_name,
        retries=urllib3.Retry(connect=1, read=1, redirect=0, status=0, other=0, backoff_factor=0.1),
    )
    return client


def tls_context(at: Endpoint) -> ssl.SSLContext:
    """A context that trusts the cluster's CA alone.

    Raises:
        FluobookError: the CA or the identity cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=at.ca)
        if at.identity:
            load_identity(context, at.identity)
    except ssl.SSLError as error:
        raise FluobookError(
            f"the certificates in the kubeconfig cannot be used: {error.reason}", remedy="fluobook kubeconfig"
        ) from None
    return context
