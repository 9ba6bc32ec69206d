"""The base of the lab's HTTP servers: a socket on loopback, TLS, and a request log."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook.machine import pki

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp.typedefs import Middleware

    from fluobook_lab.clock import Clock

READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Request:
    """One request, at `time` in simulated seconds.

    `mutating` says whether it could change anything; `status` is 0 if the connection broke before the answer.
    """

    time: float
    method: str
    path: str
    status: int
    mutating: bool
    user_agent: str


def issue_for(authority: pki.KeyPair, names: Iterable[str], **options: Any) -> pki.KeyPair:
    """A server's certificate for IP addresses and DNS names; `options` are those of `pki.issue`."""
    ips, dns = [], []
    for name in sorted(set(filter(None, names))):
        try:
            ips.append(str(ipaddress.ip_address(name)))
        except ValueError:
            dns.append(name)
    return pki.issue(authority, ips=ips, dns=dns, server=True, **options)


class HttpServer:
    """One aiohttp application on loopback that logs its requests.

    Args:
        app: the application.
        clock: the lab's clock.
        read_only: whether a request changes nothing although its method could.
        follow_clients: cancel a handler when its client disconnects; for long answers such as watches.
    """

    def __init__(
        self,
        app: web.Application,
        clock: Clock,
        *,
        read_only: Callable[[web.Request], bool] = lambda _: False,
        follow_clients: bool = False,
    ) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._clock = clock
        self._read_only = read_only
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=follow_clients)
        app.middlewares.insert(0, self._middleware())

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen on a bound socket, or on a port of 127.0.0.1 (0 for a free one); `port` holds the number."""
        bound = sock if isinstance(sock, socket.socket) else socket.create_server(("127.0.0.1", sock))
        self.port = bound.getsockname()[1]
        await self._runner.setup()
        await web.SockSite(self._runner, bound, ssl_context=ssl_context, backlog=512).start()

    async def stop(self) -> None:
        """Stop listening and close all connections at once."""
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            connection.force_close()
        await self._runner.cleanup()

    def _middleware(self) -> Middleware:
        @web.middleware
        async def log(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            status = 0
            try:
                response = await handler(request)
                status = response.status
            except web.HTTPException as refusal:
                status = refusal.status
                raise
            finally:
                self._log(request, status)
            return response

        return log

    def _log(self, request: web.Request, status: int) -> None:
        self.requests.append(
            Request(
                time=self._clock.now(),
                method=request.method,
                path=request.path_qs,
                status=status,
                mutating=request.method not in READ_ONLY and not self._read_only(request),
                user_agent=request.headers.get("User-Agent", ""),
            )
        )
