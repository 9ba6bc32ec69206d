"""One server stands for the real host, at another address; the client must never notice, and never trust another."""

import ssl
from contextlib import closing

import pytest
from aiohttp import web
from fluobook_lab.clock import Clock
from fluobook_lab.http import HttpServer

from fluobook.clients.https import HttpClient, Target, presented
from fluobook.errors import InvalidAnswer, Unreachable
from fluobook.machine.pki import fingerprint

pytestmark = pytest.mark.lab


@pytest.fixture
def echo(background, tls_of):
    """A server that answers with the Host header that it received, and its certificate."""
    context, certificate = tls_of(dns=("real.lab",))

    async def host(request: web.Request) -> web.Response:
        if request.path == "/away":
            raise web.HTTPFound("https://127.0.0.1:1/")
        return web.Response(text=request.headers["Host"])

    async def start() -> HttpServer:
        app = web.Application()
        app.router.add_get("/{tail:.*}", host)
        server = HttpServer(app, Clock())
        await server.start(0, context)
        return server

    server = background.run(start())
    yield server, certificate
    background.run(server.stop())


def client_of(target: Target) -> HttpClient:
    return HttpClient(target, system="factory", name="the server")


def text_of(client: HttpClient, path: str = "/") -> str:
    return client.send("GET", path, doing="read it").text


def test_the_real_host_is_asked_for_at_the_mapped_address(echo, ca_file):
    server, _ = echo
    for port, shown in ((443, "real.lab"), (8006, "real.lab:8006")):
        target = Target("real.lab", port, address=("127.0.0.1", server.port), ca_file=str(ca_file))
        with closing(client_of(target)) as client:
            assert text_of(client) == shown


def test_a_proxy_of_the_environment_is_not_used_for_a_mapped_address(echo, ca_file, monkeypatch):
    server, _ = echo
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    target = Target("real.lab", 443, address=("127.0.0.1", server.port), ca_file=str(ca_file))
    with closing(client_of(target)) as client:
        assert text_of(client) == "real.lab"


def test_a_proxy_of_the_environment_is_used_for_a_host_that_is_not_mapped(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with closing(client_of(Target("real.lab", 443))) as client, pytest.raises(Unreachable, match="the proxy") as caught:
        text_of(client)
    assert caught.value.code == "PROXY"


def test_a_redirect_to_another_host_is_refused_with_its_name(echo, ca_file):
    server, _ = echo
    target = Target("real.lab", 443, address=("127.0.0.1", server.port), ca_file=str(ca_file))
    with closing(client_of(target)) as client, pytest.raises(InvalidAnswer, match=r"https://127\.0\.0\.1:1/") as caught:
        text_of(client, "/away")
    assert caught.value.code == "REDIRECT"
    assert [request.path for request in server.requests] == ["/away"]


def test_a_pinned_certificate_is_trusted_without_its_authority_and_no_other_is(echo):
    server, certificate = echo
    pinned = fingerprint(certificate)
    for pin in (pinned, pinned.replace(":", "").lower()):
        target = Target("any.name", 443, address=("127.0.0.1", server.port), fingerprint=pin)
        with closing(client_of(target)) as client:
            assert text_of(client) == "any.name"
    other = Target("any.name", 443, address=("127.0.0.1", server.port), fingerprint="00" * 32)
    with closing(client_of(other)) as client, pytest.raises(Unreachable, match="not the pinned one") as caught:
        text_of(client)
    assert pinned in caught.value.detail


def test_the_fingerprint_that_a_host_shows_can_be_read(echo):
    server, certificate = echo
    assert fingerprint(certificate) in presented(Target("x", 1, address=("127.0.0.1", server.port)))


def test_a_host_that_is_not_there_shows_no_fingerprint():
    assert presented(Target("127.0.0.1", 1)).endswith("none")


def test_a_file_without_certificates_is_no_ca_file(tmp_path):
    empty = tmp_path / "ca.pem"
    empty.write_text("")
    with pytest.raises(ssl.SSLError):
        Target("x", 1, ca_file=str(empty)).context()
