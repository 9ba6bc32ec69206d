"""gRPC calls from blocking code: connections that are kept, a deadline for each call, typed errors.

The calls run on one event loop in a thread of its own: stages run in threads, and in Jupyter the main thread already
runs a loop. grpclib and not grpcio, because the latter cannot verify Talos' Ed25519 certificates.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError
from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from fluobook import errors
from fluobook.clients import answers, https
from fluobook.waiting import retry

T = TypeVar("T")

WINDOW = 16 * 1024 * 1024
"""Flow control window in bytes: flows and watches come in bursts, and the sender should not wait for us."""
SETTINGS, SETTINGS_AT = b"\4", 3
"""The type of the frame with which every HTTP/2 server begins, and its place in the frame."""
RETRY_AFTER = (0.05, 0.1)
"""Seconds before each repetition of a read whose connection was lost."""

NO_GRPC = (DecodeError, AssertionError, NotImplementedError, LookupError, UnicodeDecodeError)
"""What grpclib raises, beside its own errors, for a message that is missing, cut off, compressed or of another type."""
FOREIGN = (GRPCError, StreamTerminatedError, ProtocolError, OSError, *NO_GRPC)
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, EOFError, DecodeError)
"""What reading an answer raises if it lacks fields or has other types."""
LOST, OVERDUE = https.LOST, https.OVERDUE

KINDS: dict[Status, type[errors.OutsideError]] = {
    Status.UNAVAILABLE: errors.Unreachable,
    Status.DEADLINE_EXCEEDED: errors.Unreachable,
    Status.UNAUTHENTICATED: errors.AccessDenied,
    Status.PERMISSION_DENIED: errors.AccessDenied,
    Status.NOT_FOUND: errors.NotFound,
    Status.ALREADY_EXISTS: errors.Conflict,
    Status.ABORTED: errors.Conflict,
    Status.INVALID_ARGUMENT: errors.Rejected,
    Status.OUT_OF_RANGE: errors.Rejected,
}
"""The error for each gRPC status; every other status is an `OutsideError`."""


@dataclass(frozen=True)
class Address:
    """Where to connect, and which server is expected there.

    `host` and `port` may be those of a tunnel, a bastion or the lab; `server_name` is then the real address, which the
    certificate must be valid for and which messages name. Empty means that `host` is the real one.
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
    """One kept connection to a gRPC server; opened at the first call and again when it was lost; thread-safe.

    Args:
        address: the server.
        system: the system that errors name: "talos" or "hubble".
        context: TLS, or None for plain text.
        accept: receives the server's certificate (DER) before anything is sent; raises to refuse it.
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
        self._silent: list[_Channel] = []

    def __del__(self) -> None:
        # Closes the channels of a connection that nobody closed.
        for channel in filter(None, [getattr(self, "_channel", None), *getattr(self, "_silent", ())]):
            background().soon(channel.close)

    def call(self, stub: type, method: str, request: Any, *, timeout: float, again: bool = False) -> Any:
        """One reply to one request.

        Args:
            stub: a generated `…Stub` class.
            method: its RPC, by name.
            request: its message.
            timeout: seconds.
            again: the call only reads, so it is repeated if the kept connection was lost, or fell silent: a firewall
                on the way forgets connections without a word, and only a new one shows whether the node answers.

        Raises:
            OutsideError: see `translate`.
        """
        silent = False

        def once() -> Any:
            nonlocal silent
            kept = self._channel
            try:
                return background().run(self._unary(stub, method, request, timeout))
            except errors.Unreachable as error:
                silent = error.code == OVERDUE and bool(kept and kept.first)
                if kept and silent and self._channel is kept:
                    self._silent.append(kept)
                    self._channel = None
                raise

        return retry(
            once,
            if_error=lambda error: is_lost_connection(error) or silent,
            pauses=RETRY_AFTER if again else (),
        )

    def stream(self, stub: type, method: str, request: Any, *, timeout: float | None) -> Iterator[Any]:
        """The replies to one request, as they come; `timeout` (seconds) limits the whole of it."""
        return background().iterate(self._replies(stub, method, request, timeout))

    def upload(self, stub: type, method: str, requests: Iterable[Any], *, timeout: float) -> Any:
        """The one reply to many requests, all within `timeout` seconds."""
        return background().run(self._sent(stub, method, requests, timeout))

    def follow(self, stub: type, method: str, request: Any, *, timeout: float | None) -> Iterator[Any]:
        """Replies that never end by themselves: until closed, or for `timeout` seconds, which is no error."""
        try:
            yield from background().iterate(self._replies(stub, method, request, timeout))
        except errors.Unreachable as error:
            if timeout is None or error.code != OVERDUE:
                raise

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        background().run(self._close())

    async def _unary(self, stub: type, method: str, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        with self._opened(method) as channel:
            return await getattr(stub(channel), method)(request, timeout=timeout)

    async def _sent(self, stub: type, method: str, requests: Iterable[Any], timeout: float) -> Any:  # noqa: ASYNC109
        with self._opened(method) as channel:
            async with getattr(stub(channel), method).open(timeout=timeout) as stream:
                for request in requests:
                    await stream.send_message(request)
                await stream.end()
                return await stream.recv_message()

    async def _replies(self, stub: type, method: str, request: Any, timeout: float | None) -> AsyncIterator[Any]:  # noqa: ASYNC109
        with self._opened(method) as channel:
            async with getattr(stub(channel), method).open(timeout=timeout) as stream:
                await stream.send_message(request, end=True)
                async for reply in stream:
                    yield reply

    @contextmanager
    def _opened(self, method: str) -> Iterator[_Channel]:
        """The channel for one call, whose foreign errors become ours."""
        channel = self._open()
        try:
            yield channel
        except FOREIGN as error:
            raise self._translated(error, channel, method) from error

    def _open(self) -> _Channel:
        if self._channel is None:
            self._channel = _Channel(self.address, self._context, self._accept)
        return self._channel

    async def _close(self) -> None:
        for channel in filter(None, [self._channel, *self._silent]):
            channel.close()
        self._channel = None
        self._silent.clear()

    def _translated(self, error: BaseException, channel: _Channel, method: str) -> errors.OutsideError:
        lost = channel.lost if isinstance(error, StreamTerminatedError) else None
        if (
            (first := channel.first)
            and not isinstance(error, (GRPCError, *NO_GRPC))
            and first[SETTINGS_AT : SETTINGS_AT + 1] != SETTINGS
        ):
            return self.invalid(method, "is not HTTP/2", first)
        return translate(lost or error, system=self.system, address=self.address, method=method)

    def invalid(self, method: str, reason: str, body: bytes = b"") -> errors.InvalidAnswer:
        """The error for an answer that cannot be read; `reason` is a clause without its subject."""
        code, shown = answers.MALFORMED if body else answers.UNEXPECTED, answers.first_bytes(body)
        if page := body.find(b"<") + 1:
            code = answers.HTML if answers.is_html(body[page - 1 :]) else code
        return errors.InvalidAnswer(
            f"the answer of {self.system} at {self.address} to {method} {reason}",
            system=self.system,
            detail=f"it begins with: {shown}" if body else "",
            code=code,
            facts={"address": self.address.name, "endpoint": f"{self.address.host}:{self.address.port}"},
        )

    @contextmanager
    def reading(self, method: str) -> Iterator[None]:
        """Read an answer; one that lacks fields or has other types is an InvalidAnswer."""
        try:
            yield
        except UNREADABLE:
            raise self.invalid(method, "lacks a field, or has one of another type") from None


class _Protocol(H2Protocol):  # type: ignore[misc]
    """Remembers the first bytes, and why the connection was lost: grpclib forgets it, and a TLS alert arrives so."""

    lost: BaseException | None = None
    first = b""

    def data_received(self, data: bytes) -> None:
        if len(self.first) <= SETTINGS_AT:
            self.first += data[: 1 << 12]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)


class _Channel(Channel):  # type: ignore[misc]
    """A grpclib channel that verifies the certificate for the real name and passes it to `accept`."""

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
        """Why the last connection was lost, if the server said so."""
        return getattr(self._protocol, "lost", None)

    @property
    def first(self) -> bytes:
        """The first bytes of the last connection."""
        return getattr(self._protocol, "first", b"")

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


def translate(error: BaseException, *, system: str, address: Address, method: str) -> errors.OutsideError:
    """Our error for one of grpclib's, of the TLS layer's or of the operating system's.

    `code` is the gRPC status ("ALREADY_EXISTS"), an errno ("ECONNREFUSED"), or one of the constants of this module.
    """
    facts = {"address": address.name, "endpoint": f"{address.host}:{address.port}"}
    given: dict[str, Any] = {"system": system, "facts": facts}
    if isinstance(error, NO_GRPC) or (isinstance(error, GRPCError) and _FOREIGN_TEXT.search(error.message or "")):
        text = str(getattr(error, "message", "") or error)
        code = answers.HTML if "text/html" in text else answers.MALFORMED
        message = f"the answer of {system} at {address} to {method} is not gRPC"
        return errors.InvalidAnswer(message, code=code, detail=text, **given)
    if isinstance(error, GRPCError):
        kind, code, detail = KINDS.get(error.status, errors.OutsideError), error.status.name, error.message or ""
        return kind(f"{system} at {address} refused {method}: {detail or code}", code=code, detail=str(detail), **given)
    code = LOST if isinstance(error, StreamTerminatedError | ProtocolError) else https.code_of(error)
    if isinstance(error, ssl.SSLError) and code == https.NOT_TLS and getattr(error, "reason", "") not in _NOT_TLS:
        code = https.TLS_ALERT
    if code in https.UNTRUSTED:
        message = f"the certificate of {system} at {address} is not trusted: {https.UNTRUSTED[code]}"
    else:
        message = f"{system} at {address} did not answer {method}{' in time' if code == OVERDUE else ''}"
    return errors.Unreachable(message, code=code, detail=https.reason_of(error), **given)


_FOREIGN_TEXT = re.compile(r"(?i)(invalid|missing) (content-type|grpc-status)|received :status = '(3|404)")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""OpenSSL's reasons for bytes that are not TLS."""


def is_lost_connection(error: errors.FluobookError) -> bool:
    """Whether the connection ended during the call, so that a read may be repeated on a new one."""
    return isinstance(error, errors.Unreachable) and error.code == LOST


class BackgroundLoop:
    """An event loop that runs on a daemon thread until the process ends."""

    def __init__(self, name: str = "fluobook-loop") -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run it on the loop and wait for its result; an interrupted wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, callback: Callable[[], object]) -> None:
        """Call it on the loop, without waiting for it."""
        self._loop.call_soon_threadsafe(callback)

    def iterate(self, source: AsyncIterator[T], *, ahead: int = 4096) -> Iterator[T]:
        """The items of an asynchronous source, in a thread that may block; at most some `ahead` items wait.

        Ending the iteration early (`close()`, or leaving the loop) cancels the source.
        """
        pipe = _Pipe(source, ahead)
        pump = asyncio.run_coroutine_threadsafe(pipe.pump(), self._loop)
        pump.add_done_callback(pipe.end)
        try:
            while items := pipe.take():
                self._loop.call_soon_threadsafe(pipe.room.set)
                yield from items
            pump.result()
        finally:
            pump.cancel()


class _Pipe(Generic[T]):
    """Hands items from the loop's thread to another in batches: a lock for each item would cost more than the item."""

    def __init__(self, source: AsyncIterator[T], ahead: int) -> None:
        self._source, self._ahead = source, ahead
        self._items: deque[T] = deque()
        self._ready = threading.Condition()
        self._ended = False
        self.room = asyncio.Event()

    async def pump(self) -> None:
        """Fill the pipe, and wait while it is full."""
        async for item in self._source:
            with self._ready:
                self._items.append(item)
                if len(self._items) == 1:
                    self._ready.notify()
                full = len(self._items) >= self._ahead
            if full:
                self.room.clear()
                await self.room.wait()

    def end(self, _pump: Future[None]) -> None:
        """Wake the waiting thread: there will be no more items."""
        with self._ready:
            self._ended = True
            self._ready.notify()

    def take(self) -> deque[T]:
        """All items that are ready, as soon as there is one; empty once the source has ended."""
        with self._ready:
            self._ready.wait_for(lambda: self._items or self._ended)
            items, self._items = self._items, deque()
        return items


_STARTING = threading.Lock()


def background() -> BackgroundLoop:
    """The loop that all clients of this process share."""
    with _STARTING:  # a cache alone calls its function once for each thread that comes before the first result
        return _started()


@cache
def _started() -> BackgroundLoop:
    return BackgroundLoop()
