"""Lists of releases: Kubernetes' own files, and a Python package index."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fluobook.clients import releases
from fluobook.errors import InvalidAnswer, NotFound, OutsideError, Unreachable

FILES: dict[str, str] = {}


class Files(BaseHTTPRequestHandler):
    """Serves the texts of FILES."""

    def do_GET(self) -> None:
        text = FILES.get(self.path)
        self.send_response(200 if text is not None else 404)
        body = (text or "").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    FILES.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_each_minor_of_kubernetes_is_listed_with_its_newest_patch(url):
    FILES.update({"/r/stable.txt": "v1.37.1\n", "/r/stable-1.36.txt": "v1.36.6", "/r/stable-1.35.txt": "v1.35.10"})
    assert releases.kubernetes(f"{url}/r", since="1.35.4") == ["v1.35.10", "v1.36.6", "v1.37.1"]
    assert releases.kubernetes(f"{url}/r", since="1.37.0") == ["v1.37.1"]


@pytest.mark.parametrize("text", ["", "<html>sign in</html>", "1.36", "v1.36.1 \x00", "null"])
def test_what_is_no_version_is_refused_with_what_was_answered(url, text):
    FILES["/stable.txt"] = text
    with pytest.raises(InvalidAnswer):
        releases.kubernetes(url, since="1.35.4")


def test_a_missing_minor_is_an_error_and_no_gap(url):
    FILES["/stable.txt"] = "v1.37.1"
    with pytest.raises(OutsideError):
        releases.kubernetes(url, since="1.35.4")


def index(*files: object) -> str:
    return json.dumps({"files": [file if isinstance(file, dict) else {"filename": file} for file in files]})


def test_versions_of_a_package_come_from_its_files(url):
    yanked = {"filename": "demo_pkg-2.0.0-py3-none-any.whl", "yanked": "broken"}
    FILES["/simple/demo-pkg/"] = index("demo_pkg-1.2.0-py3-none-any.whl", "demo_pkg-1.3.tar.gz", yanked)
    assert releases.packages("demo-pkg", f"{url}/simple") == ["1.2.0", "1.3"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": [1]}', "<html></html>", '{"files": {}}'])
def test_something_else_than_an_index_is_refused(url, text):
    FILES["/demo/"] = text
    with pytest.raises(InvalidAnswer):
        releases.packages("demo", url)


def test_a_package_that_is_not_there_is_named(url):
    FILES["/demo/"] = index()
    with pytest.raises(NotFound, match="has no version of demo"):
        releases.packages("demo", url)


def test_a_list_that_does_not_answer_is_unreachable():
    with pytest.raises(Unreachable):
        releases.packages("demo", "http://127.0.0.1:1", deadline=2)
