"""gRPC: typed errors, and the background loop that lets blocking code use asynchronous sources."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import socket
import ssl
import threading

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server

from fluobook.clients import rpc
from fluobook.clients.rpc import (
    LOST,
    OVERDUE,
    Address,
    BackgroundLoop,
    Connection,
    background,
    is_lost_connection,
    translate,
)
from fluobook.clients.talos import Mode, probe
from fluobook.clients.talos.probe import unverified
from fluobook.errors import AccessDenied, Conflict, InvalidAnswer, NotFound, OutsideError, Rejected, Unreachable
from fluobook.failures import present
from fluobook.wire.generated.machine_grpc import MachineServiceStub
from fluobook.wire.generated.machine_pb2 import VersionResponse

HERE = Address("10.10.0.10", 50000)
BOUND, SILENCE = 60, 0.2


@pytest.fixture
def silent():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1], "10.10.0.10")


@pytest.mark.parametrize("context", [None, unverified()], ids=["plain", "tls"])
def test_a_call_to_a_silent_server_times_out(silent, context):
    connection = Connection(silent, system="talos", context=context)
    with pytest.raises(Unreachable) as caught:
        connection.call(MachineServiceStub, "Version", Empty(), timeout=0.2, again=True)
    connection.close()
    assert caught.value.code == OVERDUE
    assert present(caught.value).remedy


@pytest.fixture
def forgotten():
    """A server that answers one call on each connection; what comes after it on that connection is lost."""

    answered = set()

    async def version(stream):
        await stream.recv_message()
        if (peer := stream.peer.addr()) in answered:
            await asyncio.Event().wait()
        answered.add(peer)
        await stream.send_message(VersionResponse())

    class Node:
        def __mapping__(self):
            return {
                "/machine.MachineService/Version": Handler(version, Cardinality.UNARY_UNARY, Empty, VersionResponse)
            }

    async def serve(sock):
        server = Server([Node()])  # takes the loop that runs
        await server.start(sock=sock)
        return server

    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = background().run(serve(sock))
        yield Address(*sock.getsockname(), "10.10.0.10"), answered
        background().soon(server.close)


def test_a_read_on_a_kept_connection_that_fell_silent_is_repeated_on_a_new_one(forgotten, monkeypatch):
    address, answered = forgotten
    connection, unary = Connection(address, system="talos"), Connection._unary
    attempts = iter([BOUND, SILENCE, BOUND, SILENCE, BOUND])  # those that are not answered end soon

    def limited(self, stub, method, request, _timeout):
        return unary(self, stub, method, request, next(attempts))

    def version(**given):
        return connection.call(MachineServiceStub, "Version", Empty(), timeout=BOUND, **given)

    monkeypatch.setattr(Connection, "_unary", limited)
    version()
    assert version(again=True) is not None
    assert len(answered) == 2
    with pytest.raises(Unreachable, match="did not answer Version in time"):
        version()
    assert version() is not None
    connection.close()


@pytest.mark.parametrize("error", [AssertionError("cut off"), NotImplementedError("compressed"), KeyError(":status")])
def test_what_grpclib_raises_for_a_broken_message_is_an_invalid_answer(monkeypatch, silent, error):
    async def unary(self, *_, **__):
        with self._opened("Version"):
            raise error

    monkeypatch.setattr(Connection, "_unary", unary)
    with pytest.raises(InvalidAnswer, match="is not gRPC"):
        Connection(silent, system="talos").call(MachineServiceStub, "Version", Empty(), timeout=1)


@pytest.mark.parametrize("status", [302, 404])
def test_an_http_status_that_no_grpc_server_sends_is_not_a_call_that_talos_lacks(status):
    error = GRPCError(Status.UNIMPLEMENTED, f"Received :status = '{status}'")
    assert type(translate(error, system="talos", address=HERE, method="Version")) is InvalidAnswer


def test_a_probe_of_a_silent_server_times_out(silent):
    assert probe(silent, timeout=0.2).mode is Mode.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.UNAVAILABLE, Unreachable),
        (Status.DEADLINE_EXCEEDED, Unreachable),
        (Status.PERMISSION_DENIED, AccessDenied),
        (Status.UNAUTHENTICATED, AccessDenied),
        (Status.NOT_FOUND, NotFound),
        (Status.ALREADY_EXISTS, Conflict),
        (Status.INVALID_ARGUMENT, Rejected),
        (Status.FAILED_PRECONDITION, OutsideError),
        (Status.UNIMPLEMENTED, OutsideError),
        (Status.INTERNAL, OutsideError),
    ],
)
def test_each_status_has_its_error(status, kind):
    error = translate(GRPCError(status, "because"), system="talos", address=HERE, method="Bootstrap")
    assert type(error) is kind
    assert (error.code, error.detail, error.system) == (status.name, "because", "talos")
    assert "10.10.0.10:50000" in error.message
    assert "Bootstrap" in error.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "ECONNREFUSED"),
        (OSError(errno.EHOSTUNREACH, "no route"), "EHOSTUNREACH"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), LOST),
        (BrokenPipeError(errno.EPIPE, "pipe"), LOST),
        (StreamTerminatedError("Connection lost"), LOST),
        (ssl.SSLError(1, "[SSL: X] x"), "TLS_ALERT"),
        (TimeoutError(), OVERDUE),
    ],
)
def test_each_broken_connection_has_its_code_and_is_in_the_catalogue(error, code):
    translated = translate(error, system="talos", address=HERE, method="Version")
    assert isinstance(translated, Unreachable)
    assert translated.code == code
    assert present(translated).causes
    assert present(translated).remedy


def test_only_a_call_on_a_lost_connection_is_repeated():
    def broken(error):
        return translate(error, system="talos", address=HERE, method="Version")

    assert is_lost_connection(broken(StreamTerminatedError("Connection lost")))
    assert not is_lost_connection(broken(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert not is_lost_connection(broken(GRPCError(Status.UNAVAILABLE, "etcd")))
    assert not is_lost_connection(broken(TimeoutError()))


def test_an_address_shows_the_real_name_first():
    assert str(Address("127.0.0.1", 40001, "10.10.0.10")) == "10.10.0.10 (by 127.0.0.1:40001)"
    assert str(Address("10.10.0.10", 50000)) == "10.10.0.10:50000"


async def numbers(stop: threading.Event, *, until: int = 10**9):
    try:
        for number in range(until):
            await asyncio.sleep(0)
            yield number
    finally:
        stop.set()


def test_results_and_errors_come_back():
    async def divide(by):
        return 6 / by

    assert background().run(divide(2)) == 3
    with pytest.raises(ZeroDivisionError):
        background().run(divide(0))


def test_there_is_one_loop_for_the_process_however_many_threads_ask_first(monkeypatch):
    class Slow(BackgroundLoop):
        def __init__(self):
            started.wait(0.2)  # whoever comes meanwhile must wait for this one
            super().__init__()

    started, loops = threading.Event(), set()
    monkeypatch.setattr(rpc, "BackgroundLoop", Slow)
    monkeypatch.setattr(rpc, "_started", functools.cache(rpc._started.__wrapped__))
    threads = [threading.Thread(target=lambda: loops.add(background())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(loops) == 1


def test_items_keep_their_order_and_the_iteration_ends():
    assert list(background().iterate(numbers(threading.Event(), until=5000), ahead=7)) == list(range(5000))


def test_closing_early_ends_the_source():
    ended = threading.Event()
    items = background().iterate(numbers(ended))
    assert list(itertools.islice(items, 3)) == [0, 1, 2]
    items.close()
    assert ended.wait(5)


def test_a_source_does_not_run_ahead_without_bound():
    produced = []

    async def source():
        for number in range(1000):
            produced.append(number)
            yield number

    items = background().iterate(source(), ahead=10)
    next(items)
    background().run(asyncio.sleep(0.05))
    assert len(produced) < 100
    items.close()


def test_an_error_in_the_source_reaches_the_reader_after_its_items():
    async def source():
        yield 1
        raise ValueError("broke")

    items = background().iterate(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broke"):
        next(items)


def test_many_threads_share_one_loop():
    async def double(number):
        await asyncio.sleep(0.01)
        return number * 2

    results = {}

    def work(number):
        results[number] = background().run(double(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == {number: number * 2 for number in range(50)}
