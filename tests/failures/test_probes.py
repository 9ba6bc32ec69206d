"""Probes: one connection distinguishes the causes of an unreachable endpoint."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from fluobook.errors import OutsideError, Unreachable
from fluobook.failures import present
from fluobook.failures.probes import describe, probe
from fluobook.machine.pki import new_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

CA = new_authority(organization="another")
CERTIFICATE = x509.load_pem_x509_certificate(CA.crt.encode())


def unreachable(
    port: int, *, system: str = "proxmox", code: str = "ECONNREFUSED", host: str = "127.0.0.1"
) -> Unreachable:
    return Unreachable("no answer", system=system, code=code, facts={"endpoint": f"{host}:{port}"})


@contextmanager
def server(*, context: ssl.SSLContext | None = None, greeting: bytes = b"") -> Iterator[int]:
    """A server that accepts connections, with TLS if a context is given."""

    def serve() -> None:
        while True:
            try:
                connection: Any = listener.accept()[0]
            except OSError:
                return
            try:
                connection = context.wrap_socket(connection, server_side=True) if context else connection
                connection.sendall(greeting)
            except OSError:
                pass
            connection.close()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


@pytest.fixture
def tls(tmp_path: Any) -> ssl.SSLContext:
    path = tmp_path / "server.pem"
    path.write_text(CA.crt + CA.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens; it is bound, so that nothing else gets it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_closed_port_is_reported(closed_port: int) -> None:
    port = closed_port
    assert probe(unreachable(port)) == f"127.0.0.1 is up, but nothing listens on port {port}."


def test_the_usual_port_is_named_if_it_is_open(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    with server() as usual:
        monkeypatch.setitem(probe.__globals__["USUAL_PORTS"], "proxmox", usual)
        assert f"Port {usual}, which is the usual one, accepts connections." in probe(unreachable(closed_port))


def test_a_server_without_tls_is_reported() -> None:
    with server(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert probe(unreachable(port)) == f"127.0.0.1:{port} accepts connections, but does not speak TLS."


def test_a_foreign_certificate_is_named(tls: ssl.SSLContext) -> None:
    with server(context=tls) as port:
        cause = probe(unreachable(port, code="CERTIFICATE"))
    assert "O=another" in cause
    assert "issued by" in cause


def test_an_endpoint_that_answers_again_is_reported(tls: ssl.SSLContext) -> None:
    with server(context=tls) as port:
        assert probe(unreachable(port)).endswith("the failure was temporary.")
    with server() as port:
        assert probe(unreachable(port, system="hubble")).endswith("the failure was temporary.")


def test_a_name_without_an_address_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    assert probe(unreachable(8006, host="nowhere.invalid")) == "The name nowhere.invalid cannot be resolved."


def test_a_silent_endpoint_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", never)
    assert "does not accept a connection within 0.1 s" in probe(unreachable(8006), deadline=0.1)


def test_other_errors_are_not_probed() -> None:
    assert probe(OutsideError("no", system="proxmox", facts={"endpoint": "127.0.0.1:1"})) == ""
    assert probe(Unreachable("no", system="proxmox")) == ""


@pytest.mark.parametrize(("days", "text"), [(36500, "expired on"), (-36500, "the clock here shows")])
def test_a_certificate_outside_its_validity_is_reported(days: int, text: str) -> None:
    assert text in describe(CERTIFICATE, dt.datetime.now(dt.UTC) + dt.timedelta(days=days))


def test_the_probes_result_comes_before_the_catalogues_causes(closed_port: int) -> None:
    port = closed_port
    assert present(unreachable(port), with_probe=True).causes[0].endswith(f"nothing listens on port {port}.")
    assert present(unreachable(port)).causes[0] == "The host is down."


@pytest.mark.parametrize("code", ["429", "502", "DEADLINE_EXCEEDED", "NOT_TLS"])
def test_a_server_that_answered_is_not_probed(code: str) -> None:
    with server() as port:
        assert probe(unreachable(port, code=code)) == ""
