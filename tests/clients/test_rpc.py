"""What a gRPC server that does not answer, or refuses, becomes in our own error tree."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from fluobook.clients.rpc import Address, Connection
from fluobook.clients.rpc_errors import LOST, OVERDUE, explain, is_lost_connection
from fluobook.clients.talos import Mode, probe
from fluobook.clients.talos.tls import unverified
from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, Unreachable
from fluobook.wire.generated.machine_grpc import MachineServiceStub


@pytest.fixture
def silent():
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1], "10.10.0.10")


@pytest.mark.parametrize("context", [None, unverified()], ids=["plain", "tls"])
def test_a_silent_server_is_given_up_in_time(silent, context):
    connection = Connection(silent, system="talos", context=context)
    with pytest.raises(Unreachable) as caught:
        connection.call(MachineServiceStub, "Version", Empty(), timeout=0.2, again=True)
    connection.close()
    assert caught.value.code == OVERDUE
    assert caught.value.remedy


def test_a_probe_gives_a_silent_server_up(silent):
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
    error = explain(GRPCError(status, "because"), system="talos", address="10.10.0.10:50000", method="Bootstrap")
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
def test_each_broken_connection_has_its_code_a_cause_and_a_remedy(error, code):
    told = explain(error, system="talos", address="here", method="Version")
    assert isinstance(told, Unreachable)
    assert told.code == code
    assert told.cause
    assert told.remedy


def test_only_a_lost_connection_is_asked_again():
    def told(error):
        return explain(error, system="talos", address="here", method="Version")

    assert is_lost_connection(told(StreamTerminatedError("Connection lost")))
    assert not is_lost_connection(told(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert not is_lost_connection(told(GRPCError(Status.UNAVAILABLE, "etcd")))
    assert not is_lost_connection(told(TimeoutError()))


def test_an_address_shows_the_real_name_first():
    assert str(Address("127.0.0.1", 40001, "10.10.0.10")) == "10.10.0.10 (by 127.0.0.1:40001)"
    assert str(Address("10.10.0.10", 50000)) == "10.10.0.10:50000"
