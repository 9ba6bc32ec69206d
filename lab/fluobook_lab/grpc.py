"""The base of the lab's gRPC servers: a port that stays reserved while the server is down, and authorisation."""

from __future__ import annotations

import asyncio
import re
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

LINGER = 0.1
"""Real seconds between a TLS alert and the end of the connection, so that the client can read the alert."""

REUSE = [socket.SO_REUSEADDR, *([socket.SO_REUSEPORT] if hasattr(socket, "SO_REUSEPORT") else [])]


def reserve() -> socket.socket:
    """A reserved loopback port that does not listen: connections are refused until a server opens there."""
    return bound(("127.0.0.1", 0))


def bound(address: tuple[str, int]) -> socket.socket:
    """Another socket on the port of a reserved one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _share(sock)
    sock.bind(address)
    return sock


def _share(sock: socket.socket) -> None:
    for option in REUSE:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)


class Endpoint:
    """A gRPC server that opens and closes on a reserved port.

    A listening socket cannot stop listening and keep its port, so the reserved socket never listens, and each `open`
    binds another socket on the same port.
    """

    def __init__(self, reserved: socket.socket) -> None:
        _share(reserved)
        self.address: tuple[str, int] = reserved.getsockname()
        self._reserved = reserved
        self._server: _Server | None = None

    async def open(self, services: Sequence[Any], context: ssl.SSLContext | None = None) -> None:
        """Serve these services, instead of those before."""
        self.close()
        self._server = _Server(services, context)
        await self._server.start(sock=bound(self.address))

    def present(self, context: ssl.SSLContext) -> None:
        """Use another TLS context for new connections; open ones stay."""
        if self._server is not None:
            self._server.context = context

    def close(self) -> None:
        """Refuse new connections and abort open ones, as a power cut does."""
        if self._server is not None:
            self._server.cut()
            self._server = None

    def cut(self) -> None:
        """Abort open connections, and continue to accept new ones."""
        if self._server is not None:
            self._server.cut_connections()

    def release(self) -> None:
        """Close, and release the reserved port."""
        self.close()
        self._reserved.close()


class _Server(Server):  # type: ignore[misc]
    """A grpclib server that can abort its connections; grpclib's close() leaves idle ones open."""

    def __init__(self, services: Sequence[Any], context: ssl.SSLContext | None) -> None:
        super().__init__(services)
        self._mapping: Mapping[str, Handler] = _Methods(self._mapping)
        self.context = context
        self._protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        self._protocols.append(protocol)
        return _Tls(protocol, self.context) if self.context else protocol

    def cut(self) -> None:
        """Stop listening, end all calls and abort all connections."""
        if self._server is not None:
            self.close()
        self.cut_connections()

    def cut_connections(self) -> None:
        """Abort all connections."""
        for protocol in self._protocols:
            # The attributes exist only between the handshake and the end of a connection.
            transport = getattr(getattr(protocol, "connection", None), "_transport", None)
            if transport is not None:
                transport.abort()
        self._protocols.clear()


class _Methods(dict[str, Handler]):
    """Methods by path; one that is not known is unimplemented, in the words of grpc-go.

    grpclib's own answer to it lacks a content type, and other clients call it malformed.
    """

    def get(self, path: str, _default: Any = None) -> Handler:
        """The method, or one that refuses."""
        return self[path] if path in self else _unknown(path, {known.split("/")[1] for known in self})


def _unknown(path: str, services: set[str]) -> Handler:
    service, _, method = path.strip("/").partition("/")
    text = f"unknown method {method} for service {service}" if service in services else f"unknown service {service}"

    async def refuse(_stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, text)

    return Handler(refuse, Cardinality.UNARY_STREAM, Empty, Empty)


class _Tls(SSLProtocol):
    """TLS that sends an alert to a refused client; asyncio closes the connection without one."""

    _refused = False

    def __init__(self, protocol: Any, context: ssl.SSLContext) -> None:
        super().__init__(asyncio.get_running_loop(), protocol, context, None, server_side=True)  # type: ignore[arg-type]

    def _on_handshake_complete(self, error: BaseException | None) -> None:
        if error is None:
            super()._on_handshake_complete(None)
        elif not self._refused:
            self._refused = True
            self._process_outgoing()  # type: ignore[attr-defined]
            # Closing the connection at once could overtake the alert.
            self._loop.call_later(LINGER, super()._on_handshake_complete, error)


class Incoming(NamedTuple):
    """An incoming call: the RPC's path, the peer's certificate in the form of `ssl` (or None), the metadata."""

    path: str
    certificate: Mapping[str, Any] | None
    metadata: Any


class Service:
    """Serves one gRPC service from an object whose methods have the RPCs' names in snake case.

    A method takes (request, caller) and returns a reply, or yields replies. An RPC without a method is authorised
    first, then answered with Unimplemented.

    Args:
        descriptor: the service, from a generated module's `DESCRIPTOR.services_by_name`.
        implementation: the object.
        authorise: called first; returns the `caller` for the method, or raises `GRPCError`.
        log: called with the path and the request (None for a stream) of every authorised call.
    """

    def __init__(
        self,
        descriptor: Any,
        implementation: object,
        authorise: Callable[[Incoming], Any],
        *,
        log: Callable[[str, Any], None] = lambda _path, _request: None,
    ) -> None:
        self._descriptor, self._implementation = descriptor, implementation
        self._authorise, self._log = authorise, log

    def __mapping__(self) -> dict[str, Handler]:
        return {f"/{self._descriptor.full_name}/{rpc.name}": self._handler(rpc) for rpc in self._descriptor.methods}

    def _handler(self, rpc: Any) -> Handler:
        path = f"/{self._descriptor.full_name}/{rpc.name}"
        method = getattr(self._implementation, snake(rpc.name), None)

        async def handle(stream: Any) -> None:
            caller = self._authorise(Incoming(path, stream.peer.cert(), stream.metadata))
            if method is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"method {rpc.name} not implemented")
            request = None if rpc.client_streaming else await stream.recv_message()
            self._log(path, request)
            answer = method(stream if rpc.client_streaming else request, caller)
            if isinstance(answer, AsyncIterator):
                async for reply in answer:
                    await stream.send_message(reply)
            else:
                await stream.send_message(await answer)

        kind = Cardinality((rpc.client_streaming, rpc.server_streaming))
        return Handler(handle, kind, GetMessageClass(rpc.input_type), GetMessageClass(rpc.output_type))


def snake(name: str) -> str:
    """The method name of an RPC: "EtcdMemberList" is etcd_member_list, "EtcdRemoveMemberByID" ends in by_id."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
