"""Charts and git repositories fetched from servers of their own kind, checked by digest, and kept."""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from types import SimpleNamespace

import pytest
import yaml
from aiohttp import web
from fluobook_lab.charts import Pin
from fluobook_lab.charts.sources import Folder
from fluobook_lab.charts.upstream import MANIFEST, pull
from fluobook_lab.clock import Clock
from fluobook_lab.git_server import GitServer
from fluobook_lab.http import HttpServer

from fluobook.clients import tools
from fluobook.params import mirrored

pytestmark = pytest.mark.lab
REPO = "https://charts.example.org/stable"
LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def chart(name="demo", version="1.2.3"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        content = yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version}).encode()
        entry = tarfile.TarInfo(f"{name}/Chart.yaml")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Upstream(HttpServer):
    """Answers from a table of paths: bytes, a status, or a function of the request."""

    def __init__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        super().__init__(app, Clock())
        self.pages = {}

    async def _answer(self, request):
        page = self.pages.get(request.path, 404)
        page = page(request) if callable(page) else page
        return (
            page
            if isinstance(page, web.Response)
            else web.Response(body=page)
            if isinstance(page, bytes)
            else web.Response(status=page)
        )

    def index(self, *entries):
        listed = {}
        for name, version, rest in entries:
            listed.setdefault(name, []).append({"name": name, "version": version, **rest})
        self.pages["/index.yaml"] = yaml.safe_dump({"apiVersion": "v1", "entries": listed}).encode()


@pytest.fixture
def upstream(background, tls_of):
    servers = []

    def start():
        server = Upstream()
        background.run(server.start(0, tls_of(ips=("127.0.0.1",))[0]))
        server.url = f"https://127.0.0.1:{server.port}"
        servers.append(server)
        return server

    yield start
    for server in servers:
        background.run(server.stop())


@pytest.fixture
def fetch(tmp_path, ca_file):
    """Pull pins of REPO and others into the cache, through mirrors of the params."""
    folder = tmp_path / "cache"

    def run(*pins, mirrors):
        gitops = SimpleNamespace(mirrored=lambda url: mirrored(url, mirrors))
        platform = SimpleNamespace(gitops=gitops, ca_file=lambda _: ca_file)
        return pull(pins, folder, git=tools.find("git").path, platform=platform)

    run.folder = folder
    return run


PIN = Pin(REPO, "demo", "1.2.3")


def test_a_chart_is_fetched_once_from_its_index_and_checked_by_its_digest(upstream, fetch):
    server = upstream()
    server.index(("demo", "1.2.3", {"urls": ["files/x.tgz"], "digest": sha(chart())}))
    server.pages["/files/x.tgz"] = chart()
    (row,) = fetch(PIN, mirrors={REPO: server.url})
    assert (row.state, row.digest, row.size, row.cause) == ("fetched", sha(chart()), len(chart()), "")
    assert row.url == f"{server.url}/files/x.tgz"
    asked = len(server.requests)
    (row,) = fetch(PIN, mirrors={REPO: server.url})
    assert (row.state, row.digest, len(server.requests)) == ("cached", sha(chart()), asked)
    served = Folder(fetch.folder, git=tools.find("git").path).package(PIN)
    assert served.archive == chart()


def test_a_damaged_archive_in_the_cache_is_fetched_again(upstream, fetch):
    server = upstream()
    server.index(("demo", "1.2.3", {"urls": ["x.tgz"], "digest": sha(chart())}))
    server.pages["/x.tgz"] = chart()
    fetch(PIN, mirrors={REPO: server.url})
    (file,) = fetch.folder.rglob("*.tgz")
    file.write_bytes(file.read_bytes()[:-9])
    (row,) = fetch(PIN, mirrors={REPO: server.url})
    assert (row.state, file.read_bytes()) == ("fetched", chart())


def test_an_archive_may_be_on_another_host_and_behind_redirects_to_another(upstream, fetch):
    first, second = upstream(), upstream()
    first.index(("demo", "v1.2.3", {"urls": [f"{second.url}/a.tgz"]}))
    second.pages["/a.tgz"] = lambda _: web.Response(
        status=302, headers={"Location": f"{first.url}/b.tgz?token=hunter2"}
    )
    first.pages["/b.tgz"] = lambda request: chart() if request.query == {"token": "hunter2"} else 403
    (row,) = fetch(PIN, mirrors={REPO: first.url})
    assert (row.state, row.digest) == ("fetched", sha(chart()))
    assert "hunter2" not in repr(row)


BAD = {
    "404": ({}, "there is no index.yaml"),
    "401": ({"/index.yaml": 401}, "401"),
    "no such version": ({"index": ("demo", "9.9.9", {"urls": ["x.tgz"]})}, "its index lists 9.9.9"),
    "no such chart": ({"index": ("other", "1.2.3", {"urls": ["x.tgz"]})}, "it has: other"),
    "no url": ({"index": ("demo", "1.2.3", {"urls": []})}, "has no URL for it"),
    "no archive": ({"index": ("demo", "1.2.3", {"urls": ["x.tgz"]})}, "404"),
    "wrong digest": (
        {"index": ("demo", "1.2.3", {"urls": ["x.tgz"], "digest": "0" * 64}), "/x.tgz": chart()},
        "says 000",
    ),
    "truncated": ({"index": ("demo", "1.2.3", {"urls": ["x.tgz"]}), "/x.tgz": chart()[:-20]}, "is truncated"),
    "another chart": (
        {"index": ("demo", "1.2.3", {"urls": ["x.tgz"]}), "/x.tgz": chart("other")},
        "is other 1.2.3, not demo",
    ),
    "another version": (
        {"index": ("demo", "1.2.3", {"urls": ["x.tgz"]}), "/x.tgz": chart(version="1.2.4")},
        "is demo 1.2.4",
    ),
    "login page": ({"/index.yaml": b"<html><title>Login</title>"}, "Login"),
    "to http": (
        {
            "index": ("demo", "1.2.3", {"urls": ["x.tgz"]}),
            "/x.tgz": lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/x"}),
        },
        "is a redirect",
    ),
    "circle": (
        {
            "index": ("demo", "1.2.3", {"urls": ["x.tgz"]}),
            "/x.tgz": lambda _: web.Response(status=302, headers={"Location": "/x.tgz"}),
        },
        "redirect",
    ),
}


@pytest.mark.parametrize(("pages", "cause"), BAD.values(), ids=BAD)
def test_what_an_index_does_not_deliver_is_named_with_the_cause_and_not_kept(upstream, fetch, pages, cause):
    server = upstream()
    for path, page in pages.items():
        if path == "index":
            server.index(page)
        else:
            server.pages[path] = page
    (row,) = fetch(PIN, mirrors={REPO: server.url})
    assert row.state == "unreachable"
    assert cause in row.cause
    assert list(fetch.folder.rglob("*.tgz")) == []


def test_a_server_that_is_down_does_not_stop_the_others(upstream, fetch):
    server = upstream()
    server.index(("demo", "1.2.3", {"urls": ["x.tgz"]}))
    server.pages["/x.tgz"] = chart()
    down = Pin("https://down.example.org", "other", "1.0.0")
    rows = fetch(PIN, down, mirrors={REPO: server.url, down.repository: "https://127.0.0.1:1"})
    assert [row.state for row in rows] == ["fetched", "unreachable"]
    assert "does not answer" in rows[1].cause


OCI = Pin("oci://registry.example.org/charts", "demo", "1.2.3+build")


def registry(server, content=None, *, token="anonymous", **changes):  # noqa: S107
    """The pages of an OCI registry that wants a token and keeps blobs elsewhere."""
    content = chart(version="1.2.3+build") if content is None else content
    digest = f"sha256:{sha(content)}"
    manifest = {"schemaVersion": 2, "layers": [{"mediaType": LAYER, "digest": digest, "size": len(content), **changes}]}
    body = json.dumps(manifest).encode()

    def guarded(answer):
        def page(request):
            if request.headers.get("Authorization") != f"Bearer {token}":
                where = f'Bearer realm="{server.url}/token",service="registry",scope="repository:charts/demo:pull"'
                return web.Response(status=401, headers={"WWW-Authenticate": where})
            return answer(request)

        return page

    def read_manifest(request):
        assert MANIFEST in request.headers["Accept"]
        return web.Response(body=body, headers={"Docker-Content-Digest": f"sha256:{sha(body)}"})

    def give_token(request):
        wanted = {"service": "registry", "scope": "repository:charts/demo:pull"}
        return json.dumps({"token": token}).encode() if dict(request.query) == wanted else 400

    server.pages["/token"] = give_token
    server.pages["/v2/charts/demo/manifests/1.2.3_build"] = guarded(read_manifest)
    where = {"Location": f"{server.url}/elsewhere"}
    server.pages[f"/v2/charts/demo/blobs/{manifest['layers'][0]['digest']}"] = guarded(
        lambda _: web.Response(status=307, headers=where)
    )
    server.pages["/elsewhere"] = content


def mirror(server):
    return {"oci://registry.example.org": f"oci://127.0.0.1:{server.port}"}


def test_a_chart_in_a_registry_is_fetched_with_a_token_and_checked_by_its_manifest(upstream, fetch):
    server = upstream()
    registry(server)
    (row,) = fetch(OCI, mirrors=mirror(server))
    assert (row.state, row.cause, row.digest) == ("fetched", "", sha(chart(version="1.2.3+build")))
    assert fetch(OCI, mirrors=mirror(server))[0].state == "cached"
    assert Folder(fetch.folder, git=tools.find("git").path).package(OCI).version == "1.2.3+build"


def test_an_index_may_lead_to_a_registry(upstream, fetch):
    server = upstream()
    registry(server)
    server.index(("demo", "1.2.3+build", {"urls": [f"oci://127.0.0.1:{server.port}/charts/demo:1.2.3+build"]}))
    assert fetch(Pin(REPO, "demo", "1.2.3+build"), mirrors={REPO: server.url})[0].state == "fetched"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"digest": f"sha256:{'0' * 64}"}, "and its repository says sha256:000"),
        ({"mediaType": "application/vnd.oci.image.layer.v1.tar"}, "no chart layer"),
        ({"token": ""}, "401"),
        ({"content": b"<html>"}, "is not a gzip"),
    ],
)
def test_what_a_registry_does_not_deliver_is_named_with_the_cause(upstream, fetch, change, cause):
    server = upstream()
    registry(server, **change)
    (row,) = fetch(OCI, mirrors=mirror(server))
    assert row.state == "unreachable"
    assert cause in row.cause


def test_a_registry_without_that_version_and_one_with_another_manifest_are_refused(upstream, fetch):
    server = upstream()
    registry(server)
    page = "/v2/charts/demo/manifests/1.2.3_build"
    server.pages[page] = lambda _: web.Response(body=b'{"layers": []}', headers={"Docker-Content-Digest": "sha256:00"})
    assert "the registry says sha256:00" in fetch(OCI, mirrors=mirror(server))[0].cause
    del server.pages[page]
    assert "404" in fetch(OCI, mirrors=mirror(server))[0].cause


@pytest.fixture
def git_host(background, tmp_path):
    host = GitServer(tmp_path / "git", Clock(), git=tools.find("git").path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    background.run(host.start())
    yield host
    background.run(host.stop())


def test_a_git_repository_is_fetched_at_its_tag_without_history_and_served_like_any_other(git_host, fetch, tmp_path):
    first = git_host.seed("real", tmp_path / "tree", tags=["v1"])
    git_host.commit("real", {"later": "y"})
    repository = "https://github.com/acme/real"
    mirrors = {repository: git_host.url("real")}
    (row,) = fetch(Pin(repository, "", "v1"), mirrors=mirrors)
    assert (row.state, row.digest) == ("fetched", first)
    asked = len(git_host.requests)
    assert fetch(Pin(repository, "", "v1"), mirrors=mirrors)[0].state == "cached"
    assert len(git_host.requests) == asked
    (missing,) = fetch(Pin(repository, "", "v2"), mirrors=mirrors)
    assert (missing.state, "no branch or tag 'v2'" in missing.cause) == ("unreachable", True)
    found = Folder(fetch.folder, git=tools.find("git").path).repository(Pin(repository, "", "v1"))
    assert found[1] == first
    later = git_host.head("real")  # two commits, of which the last alone is fetched
    (row,) = fetch(Pin(repository, "", "main"), mirrors=mirrors)
    assert (row.state, row.digest) == ("fetched", later)
    served = GitServer(tmp_path / "served", Clock(), git=tools.find("git").path)
    served.copy("real", found[0], "main", later)
    asyncio.run(_is_fetched(served, tmp_path))


def test_a_git_server_that_wants_a_login_is_named(upstream, fetch):
    server = upstream()
    server.pages["/acme/real/info/refs"] = 401
    repository = "https://github.com/acme/real"
    (row,) = fetch(Pin(repository, "", "v1"), mirrors={"https://github.com": server.url})
    assert (row.state, "401" in row.cause) == ("unreachable", True)


async def _is_fetched(served, tmp_path):
    """As Argo CD does: into a repository that exists, which git refuses from a shallow one."""
    await served.start()
    git, env = str(tools.find("git").path), {"GIT_CONFIG_GLOBAL": "/dev/null", "PATH": "/usr/bin:/bin"}
    for arguments in (
        ["init", "-q"],
        ["fetch", "-q", served.url("real"), "refs/tags/main"],
        ["checkout", "-q", "FETCH_HEAD"],
    ):
        process = await asyncio.create_subprocess_exec(git, "-C", str(tmp_path / "tree" / ".."), *arguments, env=env)
        assert await process.wait() == 0
    await served.stop()
    assert (tmp_path / "later").read_text() == "y"
