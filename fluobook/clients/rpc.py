"""gRPC calls from blocking code: connections that may be kept, deadlines for each call, errors of our own.

grpclib and not grpcio, because the latter cannot verify Talos' Ed25519 certificates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stamina
from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from fluobook.clients.loop import background
from fluobook.clients.rpc_errors import OVERDUE, explain, is_lost_connection
from fluobook.errors import Unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator

    from fluobook.errors import OutsideError

#: Flows and watches come in bursts; a window of this size keeps the sender from waiting for us.
WINDOW = 16 * 1024 * 1024

FOREIGN = (GRPCError, StreamTerminatedError, ProtocolError, OSError)


@dataclass(frozen=True)
class Address:
    """Where to connect, and who is expected there.

    `host` and `port` may be those of a tunnel, a bastion or the lab; `server_name` is then the real address, which the
    certificate must be good for and which a person sees. Empty means that `host` is the real one.
    """

    host: str
    port: int
    server_name: str = ""

    @property
    def name(self) -> str:
        """The real name or address."""
        return self.server_name or self.host

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if not self.server_name else f"{self.name} (by {self.host}:{self.port})"


class Connection:
    """One kept connection to a gRPC server; opened at the first call, opened anew when lost, safe for any thread.

    Args:
        address: the server.
        system: whom errors blame: "talos" or "hubble".
        context: TLS, or None for plain text.
        accept: looks at the server's certificate (DER) before anything is sent; may raise.
    """

    def __init__(
        self,
        address: Address,
        *,
        system: str,
        context: ssl.SSLContext | None = None,
        accept: Callable[[bytes], None] | None = None,
    ) -> None:
        self.address, self.system = address, system
        self._context, self._accept = context, accept
        self._channel: _Channel | None = None

    def __del__(self) -> None:
        # Whoever forgets close() leaks nothing.
        if channel := getattr(self, "_channel", None):
            background().soon(channel.close)

    def call(self, stub: type, method: str, request: Any, *, timeout: float, again: bool = False) -> Any:
        """One reply to one request.

        Args:
            stub: a generated `…Stub` class.
            method: its RPC, by name.
            request: its message.
            timeout: seconds until the call is given up.
            again: the call only reads, so it is repeated if the kept connection turns out to be lost.

        Raises:
            OutsideError: as `rpc_errors.explain` has it.
        """
        for attempt in stamina.retry_context(
            on=is_lost_connection, attempts=3 if again else 1, timeout=timeout, wait_initial=0.05, wait_max=0.5
        ):
            with attempt:
                return background().run(self._unary(stub, method, request, timeout))
        raise AssertionError  # stamina returns or raises

    def stream(self, stub: type, method: str, request: Any, *, timeout: float | None) -> Iterator[Any]:
        """The replies to one request, as they come; `timeout` (seconds) limits the whole of it."""
        return background().iterate(self._replies(stub, method, request, timeout))

    def follow(self, stub: type, method: str, request: Any, *, timeout: float | None) -> Iterator[Any]:
        """Replies that never end by themselves: until closed, or for `timeout` seconds, which is a quiet end."""
        try:
            yield from background().iterate(self._replies(stub, method, request, timeout))
        except Unreachable as error:
            if timeout is None or error.code != OVERDUE:
                raise

    def close(self) -> None:
        """Close the connection; a later call opens it anew."""
        background().run(self._close())

    async def _unary(self, stub: type, method: str, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        channel = self._open()
        try:
            return await getattr(stub(channel), method)(request, timeout=timeout)
        except FOREIGN as error:
            raise self._explained(error, channel, method) from error

    async def _replies(self, stub: type, method: str, request: Any, timeout: float | None) -> AsyncIterator[Any]:  # noqa: ASYNC109
        channel = self._open()
        try:
            async with getattr(stub(channel), method).open(timeout=timeout) as stream:
                await stream.send_message(request, end=True)
                async for reply in stream:
                    yield reply
        except FOREIGN as error:
            raise self._explained(error, channel, method) from error

    def _open(self) -> _Channel:
        if self._channel is None:
            self._channel = _Channel(self.address, self._context, self._accept)
        return self._channel

    async def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _explained(self, error: BaseException, channel: _Channel, method: str) -> OutsideError:
        lost = channel.lost if isinstance(error, StreamTerminatedError) else None
        return explain(lost or error, system=self.system, address=str(self.address), method=method)


class _Protocol(H2Protocol):  # type: ignore[misc]
    """Remembers why the connection was lost; grpclib forgets it, and a TLS alert arrives in just this way."""

    lost: BaseException | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)


class _Channel(Channel):  # type: ignore[misc]
    """A grpclib channel that verifies the certificate for the real name and shows it to `accept`."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, accept: Callable[[bytes], None] | None
    ) -> None:
        config = Configuration(
            ssl_target_name_override=address.name,
            http2_connection_window_size=WINDOW,
            http2_stream_window_size=WINDOW,
        )
        super().__init__(address.host, address.port, ssl=context, config=config)
        self._accept = accept

    def __del__(self) -> None:
        # grpclib would warn of a connection that is still open when the process ends; `Connection` closes it before.
        pass

    @property
    def lost(self) -> BaseException | None:
        """Why the last connection was lost, where the far side said so."""
        return getattr(self._protocol, "lost", None)

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)

    async def _create_connection(self) -> H2Protocol:
        protocol = await super()._create_connection()
        if self._accept is not None:
            transport = getattr(protocol.connection, "_transport", None)
            if transport is None:
                raise ConnectionResetError("the connection ended at once")
            try:
                self._accept(transport.get_extra_info("ssl_object").getpeercert(binary_form=True))
            except BaseException:
                protocol.processor.close()
                raise
        return protocol
