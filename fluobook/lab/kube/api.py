"""The API server as a whole: its objects, and the sockets it listens on (one for each control plane node)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook.lab.kube.answers import json_answer
from fluobook.lab.kube.authentication import Authenticator
from fluobook.lab.kube.errors import ApiError, unauthorized
from fluobook.lab.kube.identity import ADMIN, User
from fluobook.lab.kube.requestlog import Request, is_mutating
from fluobook.lab.kube.routes import Routes
from fluobook.lab.kube.store import Store

if TYPE_CHECKING:
    import socket
    import ssl

    from fluobook.lab.clock import Clock
    from fluobook.lab.faults import Faults

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

    Attributes:
        store: the objects, for the lab's own parts; use it on the event loop only.
        requests: what was asked over HTTP, in order.
    """

    def __init__(self, clock: Clock, faults: Faults, *, version: str = VERSION, seed: int = 0) -> None:
        self.store = Store(seed)
        self.version = version
        self.requests: list[Request] = []
        self._clock = clock
        self._faults = faults
        self.authenticator = Authenticator(self.store)
        self._routes = Routes(self.store, self.authenticator, version)
        self._runners: list[web.AppRunner] = []

    async def start(self, sock: socket.socket, ssl_context: ssl.SSLContext | None = None) -> web.AppRunner:
        """Serve on a bound socket; once for each control plane node.

        Args:
            sock: bound, listening or not.
            ssl_context: the server's, asking for client certificates of the cluster's CA (`ssl.CERT_OPTIONAL`).
                Without one everybody is admin: for tests.

        Returns:
            what `stop` takes to end this listener alone.
        """
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=ssl_context).start()
        self._runners.append(runner)
        return runner

    async def stop(self, runner: web.AppRunner | None = None) -> None:
        """End one listener, or all of them."""
        for ending in [runner] if runner else list(self._runners):
            self._runners.remove(ending)
            await ending.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        # Noted when it is asked, not when it is answered: a watch ends long after.
        at = len(self.requests)
        self._note(request, 0)
        try:
            response = await self._answered(request)
        except ApiError as error:
            response = json_answer(error.status(), error.code)
            if error.code == HTTPStatus.TOO_MANY_REQUESTS:
                response.headers["Retry-After"] = "1"
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  (a server answers 500, it does not die)
            _log.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "InternalError", f"Internal error occurred: {error!r}")
            response = json_answer(failure.status(), 500)
        self._note(request, response.status, at)
        return response

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
        return user

    def _note(self, request: web.Request, status: int, at: int | None = None) -> None:
        mutating = is_mutating(request.method, request.path, dry_run="dryRun" in request.query)
        agent = request.headers.get("User-Agent", "")
        entry = Request(self._clock.now(), request.method, request.path, status, mutating, agent)
        if at is None:
            self.requests.append(entry)
        else:
            self.requests[at] = entry
