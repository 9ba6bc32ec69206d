"""Every client against every broken answer: the error is ours, has the right cause, and comes within the deadline."""

from __future__ import annotations

import base64
import json
import re
import socket
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients import git, helm
from fluobook.clients.factory import FactoryClient
from fluobook.clients.kube import Kube
from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.clients.rpc import Address
from fluobook.clients.s3 import Bucket
from fluobook.clients.talos import connect
from fluobook.errors import OutsideError
from fluobook.failures import present
from fluobook.machine.pki import KeyPair, issue, new_authority
from tests.clients.broken import TABLE, BrokenServer, certified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
SECRET = "the-secret-of-the-token"
PYTHON = re.compile(r"Error\(|Pool\(|Disconnected\(|codec can|Exceeds the limit|\(char \d|object has no attribute|\bb'")
"""Words of Python and its libraries, which say nothing to an operator."""
PLACEHOLDER = re.compile(r"[<{]\w+[>}]| (the|version)$")
CALLS = ("proxmox", "create", "factory", "schematic", "kubernetes", "list", "charts", "git")
PROGRAMS = [
    *("an empty body", "a login page", "fewer bytes than announced", "binary", "half of a list", "the wrong fields"),
    *("wrong types inside", "another host", "401 with a page", "403", "429", "502 with a page", "no answer at all"),
    *("the end before an answer", "a body a byte at a time"),
]
"""The answers that helm is run against: starting it costs more than all other calls together."""
BUCKET = [name for name in PROGRAMS if name not in ("half of a list", "the wrong fields", "wrong types inside")]
"""The answers that are broken whatever was asked for; a list of objects is XML."""
LOST = {"proxmox": "F73", "create": "F73", "factory": "F100", "schematic": "F100", "kubernetes": "F85", "list": "F85"}
LOST |= {"bucket": "F161", "charts": "F97", "helm": "F97", "git": "F96"}
REFUSED = LOST
UNTRUSTED = {"proxmox": "F74", "create": "F74", "factory": "F101", "schematic": "F101", "kubernetes": "F86"}
UNTRUSTED |= {"bucket": "F162", "list": "F86", "charts": "F120", "helm": "F120", "git": "F95"}


@pytest.fixture(autouse=True)
def small_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr("fluobook.clients.https.RETRY_AFTER", (0.0, 0.0))
    monkeypatch.setattr("fluobook.clients.https.CONNECT_TIMEOUT", 20.0)
    for module in ("https", "factory", "git", "helm"):
        monkeypatch.setattr(f"fluobook.clients.{module}.LARGEST", 1 << 20)
    monkeypatch.setattr("fluobook.clients.helm.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def server(background: Any, authority: KeyPair) -> Iterator[BrokenServer]:
    with closing(BrokenServer(background, certified(authority))) as served:
        yield served


def error_of(
    call: str, port: int, authority: KeyPair, ca_file: Any, *, deadline: float = 20.0, host: str = HOST
) -> OutsideError | None:
    """The error of one of our calls to the server; None if it succeeds. Other exceptions fail the test."""
    url = f"https://{host}:{port}"
    token = {"token_id": "fluobook@pve!test", "token_secret": SECRET}
    proxmox = ProxmoxEndpoint(name="pve", url=url, ca_file=str(ca_file), **token)
    calls: dict[str, Callable[[], Any]] = {
        "proxmox": lambda: ProxmoxClient(proxmox, deadline=deadline).version(),
        "create": lambda: ProxmoxClient(proxmox, deadline=deadline).create_vm("pve1", vmid=100),
        "factory": lambda: FactoryClient(host, port, ca_file=str(ca_file), deadline=deadline).versions(),
        "schematic": lambda: FactoryClient(host, port, ca_file=str(ca_file), deadline=deadline).schematic("{}"),
        "kubernetes": lambda: kube(url, authority, deadline).version(),
        "list": lambda: kube(url, authority, deadline).list("v1", "Pod"),
        "bucket": lambda: bucket(url, ca_file, deadline).list("fluodata/"),
        "charts": lambda: helm.versions(f"{url}/charts", "demo", ca_file=ca_file, deadline=deadline),
        "git": lambda: git.ls_remote(f"{url}/x.git", ca_file=ca_file, password=SECRET, deadline=deadline),
        "helm": partial(
            helm.template,
            "demo",
            repo=f"{url}/charts",
            version="1.0.0",
            release="r",
            namespace="n",
            values={},
            kube_version="1.35.0",
            ca_file=ca_file,
            deadline=deadline,
        ),
    }
    calls["registry"] = partial(calls["helm"], repo=f"oci://{host}:{port}/charts")
    try:
        calls[call]()
    except OutsideError as error:
        return error
    return None


def bucket(url: str, ca_file: Any, deadline: float) -> Bucket:
    keys = {"key_id": "AKID", "secret": SECRET}
    return Bucket("snapshots", endpoint=url, region="eu-central-1", ca_file=str(ca_file), deadline=deadline, **keys)


def kube(url: str, authority: KeyPair, deadline: float) -> Kube:
    ca = base64.b64encode(authority.crt.encode()).decode()
    user = issue(authority, common_name="admin", client=True).to_base64()
    return Kube.from_kubeconfig(
        {
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"client-certificate-data": user["crt"], "client-key-data": user["key"]}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        },
        deadline=deadline,
    )


def require(error: OutsideError | None, failure: str, code: str) -> str:
    """The error has the code and the catalogue's entry; what a person sees of it."""
    assert error is not None
    shown = present(error)
    assert (error.code, shown.failure.split()[:1]) == (code, [failure]), shown.text()
    assert SECRET not in shown.text()
    assert not PLACEHOLDER.search(shown.next)
    assert not PYTHON.search(shown.text())
    return shown.text()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *((name, call) for name in TABLE for call in CALLS),
        *((name, "helm") for name in PROGRAMS),
        *((name, "bucket") for name in BUCKET),
    ],
)
def test_a_broken_answer_is_named(name: str, call: str, server: BrokenServer, authority: KeyPair, ca_file: Any) -> None:
    row = server.row = {**TABLE[name]}
    expected = {**row, **row.get("calls", {}).get(call, {})}
    slow = row.get("then") in ("hang", "drip")
    error = error_of(call, server.port, authority, ca_file, deadline=0.5 if slow else 20.0)
    failure = LOST[call] if expected["failure"] == "lost" else expected["failure"]
    shown = require(error, failure, expected["code"])
    assert row.get("shows", "") in shown
    assert row.get("hides", "nothing is hidden") not in shown


CERTIFICATES: dict[str, tuple[dict[str, Any], str]] = {
    "CERTIFICATE_EXPIRED": ({"begin": -30, "end": -1}, "F116"),
    "CERTIFICATE_NOT_YET_VALID": ({"begin": 400, "end": 500}, "F117"),
    "CERTIFICATE_WRONG_HOST": ({"host": "elsewhere.example"}, "F118"),
    "CERTIFICATE": ({"authority": new_authority(organization="unknown")}, ""),
}


@pytest.mark.parametrize("call", [*CALLS, "helm"])
@pytest.mark.parametrize("code", CERTIFICATES)
def test_a_certificate_that_is_not_trusted_has_its_reason(
    code: str, call: str, background: Any, authority: KeyPair, ca_file: Any
) -> None:
    changes, failure = CERTIFICATES[code]
    with closing(BrokenServer(background, certified(**{"authority": authority, **changes}))) as server:
        shown = require(error_of(call, server.port, authority, ca_file), failure or UNTRUSTED[call], code)
        assert server.requests == 0
    assert "certificate" in shown


@pytest.mark.parametrize("call", [*CALLS, "helm"])
def test_a_server_without_tls_is_named(call: str, background: Any, authority: KeyPair, ca_file: Any) -> None:
    with closing(BrokenServer(background, None)) as server:
        server.row = {"send": "HTTP/1.1 400 Bad Request\r\n\r\n"}
        require(error_of(call, server.port, authority, ca_file), "F122", "NOT_TLS")


@pytest.mark.parametrize("call", [*CALLS, "helm"])
def test_a_server_that_does_not_finish_the_handshake_is_overdue(call: str, authority: KeyPair, ca_file: Any) -> None:
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        require(error_of(call, port, authority, ca_file, deadline=0.5), "F115", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("call", [*CALLS, "helm"])
def test_a_closed_port_is_not_reachable(call: str, authority: KeyPair, ca_file: Any) -> None:
    require(error_of(call, 1, authority, ca_file), REFUSED[call], "ECONNREFUSED")


@pytest.mark.parametrize("call", [*CALLS, "helm"])
def test_a_name_that_does_not_exist_is_named(
    call: str, authority: KeyPair, ca_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name server is asked, which may be slow or away: helm refuses so long a label by itself."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    host = f"nowhere.{'a' * 64}.invalid" if call == "helm" else "nowhere.invalid"
    assert host in require(error_of(call, 443, authority, ca_file, host=host), "F121", "DNS")


@pytest.mark.parametrize("call", [*CALLS, "helm"])
def test_a_proxy_that_is_down_is_named(
    call: str, authority: KeyPair, ca_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call in ("kubernetes", "list"):
        return  # the Kubernetes API is never asked through a proxy
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    require(error_of(call, 443, authority, ca_file, host="nowhere.invalid"), "F124", "PROXY")


GOOD = {
    "proxmox": '{"data": {"version": "9.0.10"}}',
    "factory": '["v1.13.9"]',
    "schematic": f'{{"id": "{"0" * 64}"}}',
    "kubernetes": '{"gitVersion": "v1.35.2"}',
    "charts": "entries: {demo: [{version: 1.0.0}]}",
    "git": f"001e# service=git-upload-pack\n0000003b{'0' * 40} HEAD\0symref=x\n0000",
}


@pytest.mark.parametrize("call", GOOD)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("wait", ["0", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_a_server_that_asks_to_wait_is_asked_again(  # noqa: PLR0917  (fixtures)
    wait: str, status: str, call: str, server: BrokenServer, authority: KeyPair, ca_file: Any
) -> None:
    busy = {"status": status, "headers": {"Retry-After": wait}}
    server.row = {"answers": [dict(busy) for _ in range(5)], "body": GOOD[call]}
    requests = server.requests
    assert error_of(call, server.port, authority, ca_file) is None
    assert server.requests == requests + 6


@pytest.mark.parametrize("call", GOOD)
def test_a_redirect_on_the_same_host_is_followed(
    call: str, server: BrokenServer, authority: KeyPair, ca_file: Any
) -> None:
    moved = {"status": "302 Found", "headers": {"Location": "/moved"}}
    server.row = {"answers": [moved], "body": GOOD[call]}
    error = error_of(call, server.port, authority, ca_file)
    if call == "schematic":
        require(error, "F114", "REDIRECT")  # a POST is not repeated elsewhere
    else:
        assert error is None


EXPIRED = {"status": "410 Gone", "body": '{"kind": "Status", "reason": "Expired", "message": "too old"}'}
KINDS = {"body": '{"resources": [{"name": "pods", "kind": "Pod", "namespaced": true}]}'}


def page(name: str, following: str = "") -> dict[str, str]:
    pod = {"metadata": {"name": name}, "spec": {"containers": []}}
    return {"body": json.dumps({"items": [pod], "metadata": {"continue": following}})}


def test_a_list_that_expires_between_its_pages_is_read_again(server: BrokenServer, authority: KeyPair) -> None:
    server.row = {"answers": [KINDS, page("a", "2"), EXPIRED, page("a", "2"), page("b")]}
    pods = kube(f"https://{HOST}:{server.port}", authority, 20.0).list("v1", "Pod")
    assert [pod["metadata"]["name"] for pod in pods] == ["a", "b"]


def test_a_list_that_always_expires_is_named(server: BrokenServer, authority: KeyPair, ca_file: Any) -> None:
    server.row = {**EXPIRED, "answers": [KINDS]}
    require(error_of("list", server.port, authority, ca_file), "F146", "Expired")


def packet(text: str) -> str:
    return f"{len(text) + 4:04x}{text}"


SERVICE = packet("# service=git-upload-pack\n") + "0000"
ADVERTISED = {
    "": ("F109", "EMPTY"),
    "<html>login</html>": ("F75", "HTML"),
    "\0\1\2zzzz": ("F111", "MALFORMED"),
    SERVICE: ("F110", "TRUNCATED"),
    f"{SERVICE}00": ("F110", "TRUNCATED"),
    f"{SERVICE}zzzz": ("F111", "MALFORMED"),
    SERVICE + packet("ERR access denied or repository not exported"): ("F93", "403"),
    SERVICE + packet("ERR repository not found"): ("F94", "404"),
}
"""Lists of branches that are none."""


@pytest.mark.parametrize("body", ADVERTISED)
def test_a_list_of_branches_that_is_none_is_named(
    body: str, server: BrokenServer, authority: KeyPair, ca_file: Any
) -> None:
    server.row = {"body": body}
    require(error_of("git", server.port, authority, ca_file), *ADVERTISED[body])


@pytest.mark.parametrize("name", ["a login page", "the wrong fields", "401", "502 with a page", "no answer at all"])
def test_a_registry_that_is_none_is_named(name: str, server: BrokenServer, authority: KeyPair, ca_file: Any) -> None:
    server.row = {**TABLE[name]}
    deadline = 1.0 if "no answer" in name else 20.0
    error = error_of("registry", server.port, authority, ca_file, deadline=deadline)
    require(error, TABLE[name]["failure"], TABLE[name]["code"])


def test_the_credentials_of_a_repository_are_sent(server: BrokenServer, ca_file: Any) -> None:
    server.row = {"body": GOOD["git"]}
    url = f"https://{HOST}:{server.port}/x.git"
    assert git.ls_remote(url, ca_file=ca_file, username="bot", password="t0ken") == "0" * 40
    assert b"Authorization: Basic Ym90OnQwa2Vu\r\n" in server.head


def test_a_secret_that_the_server_repeats_is_not_shown(server: BrokenServer, authority: KeyPair, ca_file: Any) -> None:
    server.row = {"body": f"your header was PVEAPIToken=fluobook@pve!test={SECRET}"}
    shown = require(error_of("proxmox", server.port, authority, ca_file), "F111", "MALFORMED")
    assert "your header was" in shown


TALOS = {
    "a login page": ("F75", "HTML"),
    "502 with a page": ("F75", "HTML"),
    "an empty body": ("F111", "MALFORMED"),
    "binary": ("F111", "MALFORMED"),
    "not HTTP": ("F111", "MALFORMED"),
    "no answer at all": ("F77", "DEADLINE_EXCEEDED"),
    "the end before an answer": ("F30", "CONNECTION_LOST"),
    "a reset before an answer": ("F30", "CONNECTION_LOST"),
}
"""What a Talos node's client makes of a server that does not speak gRPC."""


def talos_error(port: int, authority: KeyPair, monkeypatch: pytest.MonkeyPatch, seconds: float) -> OutsideError:
    monkeypatch.setattr("fluobook.clients.talos.node.Node._read.__kwdefaults__", {"timeout": seconds})
    monkeypatch.setattr("fluobook.clients.rpc.RETRY_AFTER", (0.0,))
    identity = issue(authority, common_name="admin", client=True)
    with (
        connect(Address(HOST, port), ca=authority.crt, crt=identity.crt, key=identity.key) as node,
        pytest.raises(OutsideError) as caught,
    ):
        node.version()
    return caught.value


@pytest.mark.parametrize("name", TALOS)
def test_a_server_that_is_not_talos_is_named(
    name: str, server: BrokenServer, authority: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.row = TABLE[name]
    require(talos_error(server.port, authority, monkeypatch, 0.5 if "no answer" in name else 20.0), *TALOS[name])


@pytest.mark.parametrize("code", CERTIFICATES)
def test_a_certificate_of_talos_that_is_not_trusted_has_its_reason(
    code: str, background: Any, authority: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, failure = CERTIFICATES[code]
    with closing(BrokenServer(background, certified(**{"authority": authority, **changes}))) as server:
        require(talos_error(server.port, authority, monkeypatch, 20.0), failure or "F21", code)
