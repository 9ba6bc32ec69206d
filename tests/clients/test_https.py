"""One server stands for the real host, at another address; requests must never notice, and never trust another."""

import ssl
from contextlib import closing

import pytest
import requests
from aiohttp import web
from fluobook_lab.clock import Clock
from fluobook_lab.http import HttpServer

from fluobook.clients.https import Target, TargetAdapter, fingerprint_seen
from fluobook.machine.pki import fingerprint

pytestmark = pytest.mark.lab


@pytest.fixture
def echo(background, tls_of):
    """A server that tells the Host header it was asked with, and its certificate."""
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


def session_to(target: Target) -> requests.Session:
    session = requests.Session()
    session.mount("https://", TargetAdapter(target))
    return session


def test_the_real_host_is_asked_for_at_the_mapped_address(echo, ca_file):
    server, _ = echo
    for port, shown in ((443, "real.lab"), (8006, "real.lab:8006")):
        target = Target("real.lab", port, address=("127.0.0.1", server.port), ca_file=str(ca_file))
        with closing(session_to(target)) as session:
            assert session.get(f"https://real.lab:{port}/", timeout=5).text == shown


def test_a_proxy_of_the_environment_is_not_used_for_a_mapped_address(echo, ca_file, monkeypatch):
    server, _ = echo
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    target = Target("real.lab", 443, address=("127.0.0.1", server.port), ca_file=str(ca_file))
    with closing(session_to(target)) as session:
        assert session.get("https://real.lab/", timeout=5).ok


def test_a_proxy_of_the_environment_is_used_for_a_host_that_is_not_mapped(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with closing(session_to(Target("real.lab", 443))) as session, pytest.raises(requests.exceptions.ProxyError):
        session.get("https://real.lab/", timeout=5)


def test_a_redirect_to_another_host_does_not_end_up_at_ours(echo, ca_file):
    server, _ = echo
    target = Target("real.lab", 443, address=("127.0.0.1", server.port), ca_file=str(ca_file))
    with closing(session_to(target)) as session, pytest.raises(requests.ConnectionError, match=r"127\.0\.0\.1.*port=1"):
        session.get("https://real.lab/away", timeout=5)
    assert [seen.path for seen in server.requests] == ["/away"]


def test_a_pinned_certificate_is_trusted_without_its_authority_and_no_other_is(echo):
    server, certificate = echo
    pinned = fingerprint(certificate)
    for pin in (pinned, pinned.replace(":", "").lower()):
        target = Target("any.name", 443, address=("127.0.0.1", server.port), fingerprint=pin)
        with closing(session_to(target)) as session:
            assert session.get("https://any.name/", timeout=5).ok
    other = Target("any.name", 443, address=("127.0.0.1", server.port), fingerprint="00" * 32)
    with closing(session_to(other)) as session, pytest.raises(requests.exceptions.SSLError):
        session.get("https://any.name/", timeout=5)


def test_the_fingerprint_that_a_host_shows_can_be_told(echo):
    server, certificate = echo
    assert fingerprint_seen(Target("x", 1, address=("127.0.0.1", server.port))) == fingerprint(certificate)


def test_a_host_that_is_not_there_shows_no_fingerprint():
    assert fingerprint_seen(Target("127.0.0.1", 1)) == ""


def test_a_file_without_certificates_is_no_ca_file(tmp_path):
    empty = tmp_path / "ca.pem"
    empty.write_text("")
    with pytest.raises(ssl.SSLError):
        Target("x", 1, ca_file=str(empty)).context()
