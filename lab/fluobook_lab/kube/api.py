"""The API server as a whole: its objects, and the sockets it listens on (one for each control plane node)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook_lab.http import HttpServer, Request
from fluobook_lab.kube.answers import YAML, as_yaml, json_answer
from fluobook_lab.kube.authentication import Authenticator
from fluobook_lab.kube.authorization import Question, refusal
from fluobook_lab.kube.errors import ApiError, unauthorized
from fluobook_lab.kube.identity import ADMIN, User
from fluobook_lab.kube.routes import Routes
from fluobook_lab.kube.store import SERVICE_CIDR, Store

if TYPE_CHECKING:
    import socket
    import ssl

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.forwarding import Backend

VERSION = "v1.35.2"
BODY_LIMIT = 16 << 20
"""Bytes of a request's body; Argo CD's CRDs are over 1 MiB."""

_log = logging.getLogger(__name__)


class KubeApi:
    """A Kubernetes API server in memory.

    Args:
        clock: the world clock; stamps the request log.
        faults: what goes wrong on purpose: "kube.api-500", "kube.api-429", "kube.watch-gone".
        version: gitVersion, such as "v1.35.2".
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.

    Attributes:
        store: the objects, for the lab's own parts; use it on the event loop only.
        requests: what was asked over HTTP, in order.
    """

    def __init__(
        self, clock: Clock, faults: Faults, *, version: str = VERSION, seed: int = 0, service_cidr: str = SERVICE_CIDR
    ) -> None:
        self.store = Store(seed, service_cidr)
        self.version = version
        self.requests: list[Request] = []
        self._clock = clock
        self._faults = faults
        self.authenticator = Authenticator(self.store)
        self._routes = Routes(self.store, self.authenticator, version)
        self._servers: list[HttpServer] = []

    def publish(self, backend: Backend) -> None:
        """Let port-forwards to some pods reach a server of the lab."""
        self._routes.backends.append(backend)

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> HttpServer:
        """Serve on a bound socket or a port; once for each control plane node.

        Args:
            sock: bound, or a port of 127.0.0.1 (0 for a free one).
            ssl_context: the server's, asking for client certificates of the cluster's CA (`ssl.CERT_OPTIONAL`).
                Without one everybody is admin: for tests.

        Returns:
            the listener: its `port`, and what `stop` takes to end it alone.
        """
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._serve)
        server = HttpServer(app, self._clock, read_only=_only_asks, follow_clients=True)
        server.requests = self.requests
        await server.start(sock, ssl_context)
        self._servers.append(server)
        return server

    async def stop(self, server: HttpServer | None = None) -> None:
        """End one listener, or all of them."""
        ending = [one for one in self._servers if server in (None, one)]
        self._servers = [one for one in self._servers if one not in ending]
        for one in ending:
            await one.stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        answer = await self._handle(request)
        wanted = request.headers.get("Accept", "").partition(",")[0].partition(";")[0].strip()
        if wanted == YAML and isinstance(answer, web.Response) and answer.content_type == "application/json":
            as_yaml(answer)
        return answer

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answered(request)
        except ApiError as error:
            if not error.reason and error.code == HTTPStatus.NOT_FOUND:
                return web.Response(text=error.message, status=error.code)
            response = json_answer(error.status(), error.code)
            if error.code == HTTPStatus.TOO_MANY_REQUESTS or "retryAfterSeconds" in error.details:
                response.headers["Retry-After"] = "1"
            return response
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  (a server answers 500, it does not die)
            _log.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "InternalError", f"Internal error occurred: {error!r}")
            return json_answer(failure.status(), 500)

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        if self._faults.take("kube.api-500"):
            raise ApiError(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
        if self._faults.take("kube.api-429"):
            raise ApiError(
                429, "TooManyRequests", "the server has received too many requests and has asked us to try again later"
            )
        if request.query.get("watch") in ("true", "1") and self._faults.take("kube.watch-gone"):
            for resource in self.store.registry:
                self.store.storage.compact(resource.store_key)
        return await self._routes.answer(request, user)

    def _user(self, request: web.Request) -> User:
        if request.transport is None or request.transport.get_extra_info("sslcontext") is None:
            return ADMIN
        certificate = request.transport.get_extra_info("peercert")
        user = self.authenticator.user(certificate, request.headers.get("Authorization", ""))
        if user is None:
            raise unauthorized()
        other = request.headers.get("Impersonate-User", "")
        if other and not user.is_admin:
            raise refusal(user, Question("impersonate", resource="users", name=other))
        if other:
            return User(other, frozenset({*request.headers.getall("Impersonate-Group", ()), "system:authenticated"}))
        return user


def _only_asks(request: web.Request) -> bool:
    """Dry runs, reviews and tokens change nothing."""
    return "dryRun" in request.query or request.path.endswith(("reviews", "/token"))
