"""What a probe makes of certificates: only an unknown authority is another cluster; dates and names are told apart."""

from __future__ import annotations

import datetime as dt
import socketserver
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.rpc import Address
from fluobook.clients.talos import Mode, probe
from fluobook.errors import Unreachable
from fluobook.failures import explain
from fluobook.machine import access, pki
from fluobook.machine.secrets import new_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRETS, OTHER = new_secrets(), new_secrets()
HERE = "127.0.0.1"
YEAR = 365


class Node(socketserver.ThreadingTCPServer):
    """A server that requires client certificates, as a configured node does."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = self.after = context
        super().__init__((HERE, 0), Greeting)


class Greeting(socketserver.BaseRequestHandler):
    """Sends HTTP/2 settings to a client that it accepts."""

    server: Node

    def handle(self) -> None:
        context, self.server.context = self.server.context, self.server.after
        with suppress(OSError), context.wrap_socket(self.request, server_side=True) as connection:
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")
            connection.recv(1)


@pytest.fixture
def node() -> Iterator[Callable[..., Address]]:
    """Starts nodes; `after` is what one shows from its second connection on."""
    servers: list[Node] = []

    def context_of(identity: pki.KeyPair, clients: pki.KeyPair | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pki.load_identity(context, identity)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=clients.crt)
        return context

    def make(
        identity: pki.KeyPair, *, clients: pki.KeyPair | None = SECRETS.talos, after: pki.KeyPair | None = None
    ) -> Address:
        servers.append(Node(context_of(identity, clients)))
        if after:
            servers[-1].after = context_of(after, SECRETS.talos)
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return Address(HERE, int(servers[-1].server_address[1]))

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def server_certificate(authority: pki.KeyPair = SECRETS.talos, *, ip: str = HERE, days: float = YEAR) -> pki.KeyPair:
    return pki.issue(authority, ips=[ip], server=True, days=days)


def client_certificate(days: float = YEAR) -> pki.KeyPair:
    return access.talos_client(SECRETS, access.READER, days=days)


@pytest.fixture
def in_a_year(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Certificates that are issued from then on are valid in 400 days."""
    return lambda: monkeypatch.setattr(pki, "BACKDATE", dt.timedelta(days=-400))


def ask(address: Address, identity: pki.KeyPair | None = None) -> Any:
    return probe(address, ca=SECRETS.talos.crt, identity=identity or client_certificate())


def test_a_node_of_this_cluster_is_configured(node: Callable[..., Address]) -> None:
    assert ask(node(server_certificate())).mode is Mode.CONFIGURED


def test_a_node_of_another_authority_is_of_another_cluster(node: Callable[..., Address]) -> None:
    assert ask(node(server_certificate(OTHER.talos), clients=OTHER.talos)).mode is Mode.FOREIGN


def test_a_node_that_knows_another_authority_of_ours_is_of_another_cluster(node: Callable[..., Address]) -> None:
    assert ask(node(server_certificate(), clients=OTHER.talos)).mode is Mode.FOREIGN


def test_a_node_that_takes_anybody_is_in_maintenance_mode(node: Callable[..., Address]) -> None:
    assert ask(node(server_certificate(OTHER.talos), clients=None)).mode is Mode.MAINTENANCE


def test_a_node_that_takes_its_configuration_between_two_connections_is_no_other_cluster(
    node: Callable[..., Address],
) -> None:
    address = node(server_certificate(OTHER.talos), clients=None, after=server_certificate())
    assert ask(address).mode is Mode.CONFIGURED


def refusal(address: Address, identity: pki.KeyPair | None = None) -> tuple[str, str]:
    with pytest.raises(Unreachable) as caught:
        ask(address, identity)
    return caught.value.code, explain(caught.value)[0].failure.code


def test_an_expired_certificate_is_no_other_cluster(node: Callable[..., Address]) -> None:
    address = node(server_certificate(days=-0.001))
    assert refusal(address) == ("CERTIFICATE_EXPIRED", "F116")


def test_a_certificate_that_is_not_valid_yet_is_no_other_cluster(
    node: Callable[..., Address], in_a_year: Callable[[], None]
) -> None:
    client = client_certificate()
    in_a_year()
    assert refusal(node(server_certificate(days=800)), client) == ("CERTIFICATE_NOT_YET_VALID", "F117")


def test_another_of_our_nodes_at_the_address_is_no_other_cluster(node: Callable[..., Address]) -> None:
    assert refusal(node(server_certificate(ip="10.10.0.99"))) == ("CERTIFICATE_WRONG_HOST", "F118")


def test_a_node_whose_clock_refuses_our_certificate_is_no_other_cluster(node: Callable[..., Address]) -> None:
    assert refusal(node(server_certificate()), client_certificate(days=-0.001)) == ("TLS_ALERT_EXPIRED", "F133")


def test_an_expired_certificate_of_another_authority_is_of_another_cluster(node: Callable[..., Address]) -> None:
    address = node(server_certificate(OTHER.talos, days=-0.001), clients=OTHER.talos)
    assert ask(address).mode is Mode.FOREIGN


def test_nothing_at_the_address_is_no_other_cluster(node: Callable[..., Address]) -> None:
    address = node(server_certificate())
    assert ask(Address(HERE, 1)).mode is Mode.UNREACHABLE
    assert ask(address).mode is Mode.CONFIGURED
