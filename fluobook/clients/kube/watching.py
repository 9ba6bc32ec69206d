"""One watch request: the lines of an open answer as changes."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from fluobook.clients.kube.failures import refused, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook.clients.kube.client import Kube

    Key = tuple[str, str]

SERVER_SECONDS = 300
"""How long one watch request lasts before it is asked for again."""
SILENCE_SECONDS = 90.0
"""The server sends a bookmark every minute: a longer silence is a dead connection (a laptop that slept)."""
CHUNK = 1 << 16
_SPEC = re.compile(rb',\s*"spec":\s*{')


class Change:
    """One change: "ADDED", "MODIFIED" or "DELETED", and the object as it is after it (for a deletion: was last).

    Args:
        type: the type.
        obj: the object; None to parse it from the line of the watch when it is first read.
        line: the line of the watch.
    """

    __slots__ = ("_line", "_object", "type")

    def __init__(self, type: str, obj: dict[str, Any] | None = None, line: bytes = b"") -> None:  # noqa: A002
        self.type, self._object, self._line = type, obj, line

    @property
    def object(self) -> dict[str, Any]:
        """The object, parsed once: of an object that changes often, a table shows only the last state."""
        if self._object is None:
            self._object = json.loads(self._line)["object"]
        return self._object


class WatchRequest:
    """A watch from one resourceVersion on, until the server ends it.

    Args:
        kube: the cluster.
        path: of the collection.
        query: selectors.
    """

    def __init__(self, kube: Kube, path: str, query: Mapping[str, str]) -> None:
        self._kube = kube
        self._path = path
        self._query = query
        self._answer: Any = None
        self._stopped = threading.Event()
        self.version = ""

    def changes(self, version: str, seconds: float | None = None) -> Iterator[tuple[Key, Change]]:
        """The changes after a resourceVersion, with namespace and name; `version` follows them, bookmarks included.

        Raises:
            Conflict: 410, the version is too old; list again.
            OutsideError: no answer, a refusal, or the connection broke.
        """
        self.version = version
        last = SERVER_SECONDS if seconds is None else max(1, min(SERVER_SECONDS, round(seconds)))
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(last), **self._query}
        query["resourceVersion"] = version
        what = f"watch {self._path}"
        with translated(what, self._kube.at.name):
            self._answer = self._kube.transport.raw(
                "GET", self._path, query, what=what, read_seconds=SILENCE_SECONDS, stream=True
            )
            try:
                if self._stopped.is_set():  # `stop` came while the connection was being made
                    return
                for line in _lines(self._answer):
                    if self._stopped.is_set():
                        return
                    event = head_of(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise refused(what, status.get("code", 0), status)
                    metadata = event["object"]["metadata"]
                    self.version = metadata["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield (metadata.get("namespace", ""), metadata["name"]), Change(event["type"], line=line)
            finally:
                self._answer.close()

    def stop(self) -> None:
        """End it from another thread, also while it waits for the server."""
        self._stopped.set()
        connection = getattr(self._answer, "connection", None)
        if (sock := getattr(connection, "sock", None)) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # close() would wait for the thread that reads


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    chunks = answer.read_chunked(decode_content=False) if answer.chunked else iter(lambda: answer.read1(CHUNK), b"")
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)


def head_of(line: bytes) -> dict[str, Any]:
    """An event up to the `spec` of its object, if the metadata stands before it; else the whole event.

    Metadata cannot hold an object named `spec`: labels and annotations are strings, managed fields begin with "f:".
    """
    if spec := _SPEC.search(line):
        head: dict[str, Any] = from_json(line[: spec.start()], allow_partial=True)
        if "resourceVersion" in head["object"].get("metadata", ()):
            return head
    event: dict[str, Any] = from_json(line)
    return event
