"""The base of the lab's HTTP servers: a socket on loopback, TLS, and a request log."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook.machine import pki
from fluobook_lab.grpc import bound

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp.typedefs import Middleware

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Answer

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
        self._reserved: socket.socket | None = None
        self.inject: Callable[[str], Answer | None] = lambda _request: None
        self._clock = clock
        self._read_only = read_only
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=follow_clients)
        app.middlewares.insert(0, self._middleware())

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen on a bound socket, or on a port of 127.0.0.1 (0 for a free one); `port` holds the number."""
        self._tls = ssl_context
        await self._runner.setup()
        await self._listen(sock)

    async def _listen(self, sock: socket.socket | int) -> None:
        listening = sock if isinstance(sock, socket.socket) else socket.create_server(("127.0.0.1", sock))
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening, ssl_context=self._tls, backlog=512).start()

    async def set_down(self, *, down: bool) -> None:
        """Refuse connections while the port stays ours, or listen again."""
        if down and self._runner.sites:
            await self._close()
            self._reserved = bound(("127.0.0.1", self.port))
        elif not down and self._reserved:
            await self._listen(self._reserved)
            self._reserved = None

    async def _close(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            connection.force_close()

    async def stop(self) -> None:
        """Stop listening and close all connections at once."""
        await self._close()
        if self._reserved:
            self._reserved.close()
        await self._runner.cleanup()

    def _middleware(self) -> Middleware:
        @web.middleware
        async def log(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            status = 0
            try:
                answer = self.inject(f"{request.method} {request.path_qs}")
                response = await (_injected(request, answer) if answer else handler(request))
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


async def _injected(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The answer of a fault; the connection may break in the middle of it."""
    plain = isinstance(answer.body, str)
    body = (answer.body if plain else json.dumps(answer.body)).encode()
    headers = {"Content-Type": "text/plain" if plain else "application/json", **answer.headers}
    response = web.StreamResponse(status=int(answer.status), reason=answer.reason or None, headers=headers)
    response.content_length = len(body)
    if answer.breaks != 0:
        await response.prepare(request)
        await response.write(body[: answer.breaks])
    if answer.breaks is not None and request.transport is not None:
        request.transport.close()
    else:
        await response.write_eof()
    return response
