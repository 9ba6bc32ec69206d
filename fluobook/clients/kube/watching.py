"""One watch request: the lines of an open answer as changes."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients.kube.failures import refused, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook.clients.kube.client import Kube

SERVER_SECONDS = 300
"""How long one watch request lasts before it is asked for again."""
SILENCE_SECONDS = 90.0
"""The server sends a bookmark every minute: a longer silence is a dead connection (a laptop that slept)."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class Change:
    """One change: "ADDED", "MODIFIED" or "DELETED", and the object as it is after it (for a deletion: was last)."""

    type: str
    object: dict[str, Any]


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

    def changes(self, version: str, seconds: float | None = None) -> Iterator[Change]:
        """The changes after a resourceVersion; `version` follows them, bookmarks included.

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
                    yield from self._change(json.loads(line), what)
            finally:
                self._answer.close()

    def stop(self) -> None:
        """End it from another thread, also while it waits for the server."""
        self._stopped.set()
        connection = getattr(self._answer, "connection", None)
        if (sock := getattr(connection, "sock", None)) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # close() would wait for the thread that reads

    def _change(self, event: dict[str, Any], what: str) -> Iterator[Change]:
        obj = event["object"]
        if event["type"] == "ERROR":
            raise refused(what, obj.get("code", 0), obj)
        self.version = obj["metadata"]["resourceVersion"]
        if event["type"] != "BOOKMARK":
            yield Change(event["type"], obj)


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    while chunk := answer.read1(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
