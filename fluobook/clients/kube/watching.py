"""Watches: one request, and an informer that lists, watches, and lists again when the history was lost.

The informer does what `kubernetes.informer.SharedInformer` does, which for dynamic objects never learns the
resourceVersion to continue from, writes tracebacks to the log, and does not report a dead connection.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from fluobook.clients import answers
from fluobook.clients.kube.transport import EXPIRED, SYSTEM, refused, with_query
from fluobook.errors import AccessDenied, Conflict, InvalidAnswer, OutsideError
from fluobook.waiting import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from fluobook.clients.kube.transport import Transport

    Key = tuple[str, str]

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between attempts while the connection is lost."""
SERVER_SECONDS = 300
"""Seconds that one watch request lasts before the next."""
SILENCE_SECONDS = 90.0
"""The server sends a bookmark every minute: a longer silence is a dead connection (a laptop that slept)."""
_SPEC = re.compile(rb',\s*"spec":\s*{')


class Change:
    """One change: "ADDED", "MODIFIED" or "DELETED", and the object after it (for a deletion: before it).

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
            try:
                self._object = json.loads(self._line)["object"]
            except (ValueError, RecursionError, KeyError, TypeError):
                message = "an event of the Kubernetes API cannot be parsed"
                shown = answers.first_bytes(self._line)
                raise InvalidAnswer(message, system=SYSTEM, code=answers.MALFORMED, detail=shown) from None
        return self._object


class WatchRequest:
    """A watch from a resourceVersion until the server ends it.

    Args:
        transport: the cluster.
        path: of the collection.
        query: selectors.
        opened: called when the server has answered.
    """

    def __init__(
        self, transport: Transport, path: str, query: Mapping[str, str], opened: Callable[[], object] = lambda: None
    ) -> None:
        self._opened = opened
        self._transport = transport
        self._path = path
        self._query = query
        self._answer: Any = None
        self._stopped = threading.Event()
        self.version = ""

    def changes(self, version: str) -> Iterator[tuple[Key, Change]]:
        """The changes after a resourceVersion, with namespace and name; `version` is that of the last one or bookmark.

        Raises:
            Conflict: 410, the version is too old; list again.
            OutsideError: no answer, a refusal, or the connection broke.
        """
        self.version = version
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(SERVER_SECONDS)}
        path, what = with_query(self._path, {**query, **self._query, "resourceVersion": version}), f"watch {self._path}"
        http = self._transport.http
        self._answer = http.stream(
            path, doing=what, silence=SILENCE_SECONDS, longest=2.0 * SERVER_SECONDS, refusal=self._transport.refusal
        )
        self._opened()
        try:
            if self._stopped.is_set():  # `stop` came while the connection was being made
                return
            for line in http.lines(self._answer, what, SILENCE_SECONDS):
                if self._stopped.is_set():
                    return
                try:
                    type_, key, version, obj = _event(line)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise http.unparsable(line, what, error) from None
                if type_ == "ERROR":
                    raise refused(what, obj.get("code") or 0, obj)
                self.version = version
                if type_ != "BOOKMARK":
                    yield key, Change(type_, line=line)
        finally:
            self._answer.close()

    def stop(self) -> None:
        """End it from another thread, also while it waits for the server."""
        self._stopped.set()
        connection = getattr(self._answer, "connection", None)
        if (sock := getattr(connection, "sock", None)) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # close() would wait for the thread that reads


def _event(line: bytes) -> tuple[str, Key, str, dict[str, Any]]:
    """An event's type, its object's namespace and name, the resourceVersion, and the object's head."""
    event = head_of(line)
    obj = event["object"]
    if event["type"] == "ERROR":
        return "ERROR", ("", ""), "", obj
    metadata = obj["metadata"]
    version, name = metadata["resourceVersion"], metadata.get("name", "")
    if not isinstance(version, str) or not isinstance(name, str) or (not name and event["type"] != "BOOKMARK"):
        raise ValueError("an event without a name or a version")
    return event["type"], (metadata.get("namespace", ""), name), version, obj


def head_of(line: bytes) -> dict[str, Any]:
    """An event up to the `spec` of its object, if the metadata comes before it; else the whole event.

    Metadata cannot hold an object named `spec`: labels and annotations are strings, managed fields begin with "f:".

    Raises:
        ValueError: it is not JSON, or incomplete.
    """
    if (spec := _SPEC.search(line)) and line.endswith((b"}}", b"}}\r")):
        head: dict[str, Any] = from_json(line[: spec.start()], allow_partial=True)
        if "resourceVersion" in head["object"].get("metadata", ()):
            return head
    event: dict[str, Any] = from_json(line)
    return event


class Informer:
    """The objects of one kind, kept up to date by a daemon thread.

    Args:
        transport: the cluster.
        api_version: of the kind.
        kind: the kind.
        on_change: called for every change.
        on_error: called when the connection is lost.
        selection: namespace, labels and fields of the objects to follow.

    Attributes:
        synced: set once the first list is complete.
        error: why there is no connection; None while there is one.
    """

    def __init__(
        self,
        transport: Transport,
        api_version: str,
        kind: str,
        on_change: Callable[[Change], None],
        on_error: Callable[[OutsideError], None],
        *,
        selection: Mapping[str, str],
    ) -> None:
        self._transport = transport
        self._what = (api_version, kind)
        self._on_change = on_change
        self._on_error = on_error
        self._selection = selection
        self._items: dict[Key, Change] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._request: WatchRequest | None = None
        self.synced = threading.Event()
        self.error: OutsideError | None = None
        self._thread = threading.Thread(target=self._run, name=f"inform {self._what[1]}", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End, and wait for the thread; `on_change` is not called after this returns."""
        self._stopped.set()
        if self._request is not None:
            self._request.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def items(self) -> list[dict[str, Any]]:
        """The objects, by namespace and name; not to be changed."""
        with self._lock:
            changes = [self._items[key] for key in sorted(self._items)]
        return [change.object for change in changes]

    def _changes(self) -> Iterator[Change]:
        version = ""
        while not self._stopped.is_set():
            if not version:
                version = yield from self._listed()
            try:
                version = yield from self._watched(version)
            except Conflict as error:
                if error.code not in (*EXPIRED, "410"):
                    raise
                version = ""

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self._stopped.is_set():
            try:
                for change in self._changes():
                    backoff.reset()
                    if self._stopped.is_set():
                        return
                    self._on_change(change)
            except OutsideError as error:
                if self._stopped.is_set():
                    return
                self.error = error
                self._on_error(error)
                self._stopped.wait(LONGEST_PAUSE if isinstance(error, AccessDenied) else backoff.next())

    def _listed(self) -> Generator[Change, None, str]:
        """The objects as changes since the last list; returns the resourceVersion to watch from."""
        objs, version = self._transport.snapshot(*self._what, **self._selection)
        self.error = None
        listed = {(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): Change("ADDED", obj) for obj in objs}
        with self._lock:
            known, self._items = self._items, listed
        for key in sorted(known.keys() - listed.keys()):
            yield Change("DELETED", known[key].object)
        for key, change in listed.items():
            if key not in known:
                yield change
            elif known[key].object["metadata"]["resourceVersion"] != change.object["metadata"]["resourceVersion"]:
                yield Change("MODIFIED", change.object)
        self.synced.set()
        return version

    def _connected(self) -> None:
        self.error = None

    def _watched(self, version: str) -> Generator[Change, None, str]:
        path = self._transport.kind(*self._what).path(namespace=self._selection["namespace"])
        query = {"labelSelector": self._selection["labels"], "fieldSelector": self._selection["fields"]}
        self._request = WatchRequest(self._transport, path, query, self._connected)
        if self._stopped.is_set():
            return version
        for key, change in self._request.changes(version):
            with self._lock:
                if change.type == "DELETED":
                    self._items.pop(key, None)
                else:
                    self._items[key] = change
            yield change
        return self._request.version
