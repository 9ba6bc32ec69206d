"""The export of RabbitMQ's definitions: what it asks, what it keeps, and when it stores nothing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.gitops.conftest import REPOSITORY

SCRIPT = REPOSITORY / "cluster-gitops/apps/rabbitmq/backups/export.py"
WHOLE = {"users": [], "vhosts": [], "permissions": [], "queues": []}
BOTO3 = """
import json, os, pathlib

class Client:
    def __init__(self, endpoint):
        self.folder = pathlib.Path(os.environ["STORE"])
        (self.folder / "endpoint").write_text(repr(endpoint))
    def put_object(self, Bucket, Key, Body, ContentType):
        file = self.folder / Bucket / Key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(Body)
    def delete_object(self, Bucket, Key):
        (self.folder / Bucket / Key).unlink()
    def get_paginator(self, name):
        assert name == "list_objects_v2"
        return self
    def paginate(self, Bucket, Prefix):
        files = sorted((self.folder / Bucket).rglob("*"))
        keys = [str(file.relative_to(self.folder / Bucket)) for file in files if file.is_file()]
        found = [{"Key": key} for key in keys if key.startswith(Prefix)]
        return [{"Contents": found[:2]}, {"Contents": found[2:]}, {}]

def client(service, endpoint_url):
    assert service == "s3"
    return Client(endpoint_url)
"""


@pytest.fixture
def broker() -> Iterator[tuple[str, dict[str, Any]]]:
    """A management API: its URL, and what it answers and was asked."""
    state: dict[str, Any] = {"answer": WHOLE, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["asked"].append((self.path, self.headers["Authorization"]))
            body = json.dumps(state["answer"]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def export(broker: tuple[str, dict[str, Any]], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with a module boto3 that stores in a folder."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "boto3.py").write_text(BOTO3)
    env = {"RABBITMQ_URL": broker[0], "RABBITMQ_USER": "admin", "RABBITMQ_PASSWORD": "secret", "BUCKET": "bucket"}
    env |= {"ENDPOINT": "", "KEEP": "2", "STORE": str(tmp_path), "PYTHONPATH": str(tmp_path / "modules")}

    def run(**changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", str(SCRIPT)]
        return subprocess.run(command, env=env | changes, capture_output=True, text=True, timeout=200, check=False)

    return run


def test_an_export_has_what_the_broker_answers_and_the_oldest_ones_go(
    broker: tuple[str, dict[str, Any]], export: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "bucket" / "rabbitmq"
    folder.mkdir(parents=True)
    for name in ("definitions-20200101T000000Z.json", "definitions-20210101T000000Z.json", "notes.txt"):
        (folder / name).write_text("old")
    done = export()
    assert done.returncode == 0, done.stderr
    kept = sorted(file.name for file in folder.iterdir())
    assert (len(kept), kept[0], kept[-1]) == (3, "definitions-20210101T000000Z.json", "notes.txt")
    assert json.loads((folder / kept[1]).read_text()) == WHOLE
    assert "2 kept, 1 deleted" in done.stdout
    assert broker[1]["asked"] == [("/api/definitions", "Basic " + base64.b64encode(b"admin:secret").decode())]
    assert (tmp_path / "endpoint").read_text() == "None"


def test_another_service_is_found_by_its_url(export: Callable[..., Any], tmp_path: Path) -> None:
    assert export(ENDPOINT="https://s3.example.com").returncode == 0
    assert (tmp_path / "endpoint").read_text() == "'https://s3.example.com'"


def test_what_is_no_export_is_not_stored_and_deletes_nothing(
    broker: tuple[str, dict[str, Any]], export: Callable[..., Any], tmp_path: Path
) -> None:
    broker[1]["answer"] = {"error": "not_authorised"}
    done = export()
    assert done.returncode == 1
    assert "it has no permissions, queues, users, vhosts" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert not (tmp_path / "bucket").exists()
