"""Requests to the Kubernetes API through the `kubernetes` package's API client: JSON in and out, typed errors.

A kubeconfig gives the endpoint and the identity, whose key is never written to a file. Which path a kind has is asked
from the API: the package's own discovery keeps its cache in a shared file named after the host, which two clusters
behind one bastion would share.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import urllib3

from fluobook.errors import AccessDenied, Conflict, FluobookError, NotFound, OutsideError, Rejected, Unreachable
from fluobook.machine.pki import KeyPair, load_identity
from fluobook.waiting import retry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kubernetes.client import ApiClient

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""
Objs = list[Obj]

SYSTEM = "kubernetes"
AGENT = "fluobook"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
CONNECTIONS = 16
"""Connections kept open; further threads open more, which are closed after use."""
PAGE = 500
RETRY_AFTER = (0.2, 0.4)
"""Seconds before each repetition of a read while the server is busy; writes are never repeated."""

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
_TLS = ("SSLCertVerificationError", "SSLError", "CertificateError")


@dataclass(frozen=True)
class Endpoint:
    """One cluster and one user, as a kubeconfig describes them.

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
        address: where to connect to instead of `server`; the certificate is still verified for the real name.

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
        raise FluobookError(f"the kubeconfig has {what}", cause="fluobook did not write it", remedy=remedy) from None
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


class Kind(NamedTuple):
    """One kind in one version, and where its objects are."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The path of an object, or of the collection if no name is given."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        place = ["namespaces", namespace] if self.namespaced and namespace else []
        return root + "/".join(filter(None, [self.api_version, *place, self.plural, name, subresource]))


class Transport:
    """One cluster, as one user: requests, kinds and reads; safe for threads.

    Args:
        at: the endpoint and the identity.
    """

    def __init__(self, at: Endpoint) -> None:
        self.at = at
        self._client = api_client(at)
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close idle connections."""
        pools = self._client.rest_client.pool_manager.pools
        for key in pools.keys():  # noqa: SIM118  (no dict; clear() alone would leave them to the garbage collector)
            if (pool := pools.get(key)) is not None:
                pool.close()
        pools.clear()

    def kind(self, api_version: str, kind: str) -> Kind:
        """The kind as the API serves it; asked again while it is unknown, since its CRD may be installed later.

        Raises:
            NotFound: the API does not serve it.
            OutsideError: no answer, or a refusal.
        """
        with self._lock:
            if (api_version, kind) not in self._kinds:
                self._discover(api_version)
            if found := self._kinds.get((api_version, kind)):
                return found
        raise NotFound(
            f"the Kubernetes API does not serve {kind} in {api_version}",
            system=SYSTEM,
            code="NoMatch",
            facts={"group": api_version.rpartition("/")[0], "kind": kind},
        )

    def _discover(self, api_version: str) -> None:
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            resources = self.call("GET", root + api_version, what="list the kinds")["resources"]
        except NotFound:
            return
        for entry in resources:
            if "/" not in entry["name"]:
                found = Kind(api_version, entry["kind"], entry["name"], entry["namespaced"])
                self._kinds[(api_version, entry["kind"])] = found

    def call(self, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
        """A request and the JSON of its answer; `more` as in `raw`.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        answer = retry(
            lambda: self.raw(method, path, query, **more),
            if_error=is_busy,
            pauses=RETRY_AFTER if method == "GET" else (),
        )
        return json.loads(answer.data)

    def raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        what: str,
        body: dict[str, Any] | None = None,
        media_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
        stream: bool = False,
    ) -> Any:
        """A request and its answer (urllib3's).

        Args:
            method: of HTTP.
            path: begins with "/".
            query: parameters; empty ones are left out.
            what: what is tried, as an infinitive, for messages.
            body: sent as JSON.
            media_type: of the body.
            read_seconds: seconds without data after which the connection is given up.
            stream: leave the answer open, for the caller to read and close.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        with translated(what, self.at.name):
            request = self._client.param_serialize(
                method,
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": media_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, read_seconds)).response
            refusal = answer.status >= HTTPStatus.BAD_REQUEST
            if not stream or refusal:
                answer.read(cache_content=True)
            if refusal:
                raise refused(what, answer.status, answer.data)
            return answer

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
        """One object.

        Raises:
            NotFound: no such object or kind.
            OutsideError: no answer, or a refusal.
        """
        path = self.kind(api_version, kind).path(name, namespace)
        return self.call("GET", path, what=f"read {title(kind, name, namespace)}")

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj | None:
        """One object, None if it or its kind does not exist.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        try:
            return self.get(api_version, kind, name, namespace)
        except NotFound:
            return None

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors.

        Raises:
            NotFound: no such kind.
            OutsideError: no answer, or a refusal.
        """
        return self.snapshot(api_version, kind, namespace, labels=labels, fields=fields)[0]

    def snapshot(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[Objs, str]:
        """As `list`, with the resourceVersion to watch from."""
        collection = self.kind(api_version, kind)
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        items: Objs = []
        while True:
            answer = self.call("GET", collection.path(namespace=namespace), query, what=f"list {collection.plural}")
            # Items of a list have no kind of their own.
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]
            query["continue"] = answer["metadata"].get("continue", "")
            if not query["continue"]:
                return items, answer["metadata"].get("resourceVersion", "")


def title(kind: str, name: str, namespace: str) -> str:
    """How messages name an object."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


@contextmanager
def translated(what: str, where: str) -> Iterator[None]:
    """Turn foreign exceptions into ours.

    Args:
        what: what was tried, as an infinitive: "apply Deployment web".
        where: host and port of the API.

    Raises:
        OutsideError: one of its kinds, depending on the API's answer.
    """
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    try:
        yield
    except ApiException as error:
        raise refused(what, error.status or 0, error.body) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = _reason(error)
        raise Unreachable(
            f"cannot {what}: the Kubernetes API at {where} does not answer",
            system=SYSTEM,
            detail=str(reason),
            code=type(reason).__name__,
            facts={"endpoint": where.partition("(at ")[2].rstrip(")") or where},
        ) from error


def refused(what: str, code: int, body: Any) -> OutsideError:
    """The error for an answer of the API.

    Args:
        what: what was tried.
        code: HTTP status.
        body: the answer: a Status object as JSON, or text.
    """
    status = _status(body)
    message = status.get("message") or str(body or f"HTTP {code}")
    verb, _, name = what.partition(" ")
    return _KINDS.get(code, OutsideError)(
        f"cannot {what}: {message.splitlines()[0]}",
        system=SYSTEM,
        detail=message if "\n" in message else "",
        code=status.get("reason") or str(code),
        facts={"verb": verb, "object": name, "kind": name.partition(" ")[0]},
    )


def is_busy(error: FluobookError) -> bool:
    """Whether a read may be repeated: the server is busy, or the connection ended."""
    if not isinstance(error, Unreachable):
        return False
    return error.code not in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", *_TLS)


def _reason(error: BaseException) -> BaseException:
    """The innermost error: urllib3 wraps its errors in retries."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    if isinstance(error, ssl.SSLError) or not isinstance(inner, BaseException):
        return error
    return _reason(inner)


def _status(body: Any) -> dict[str, Any]:
    try:
        status = json.loads(body) if isinstance(body, str | bytes) else body
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
