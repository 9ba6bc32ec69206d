"""Follows one kind for as long as it is wanted: lists, watches, and lists again when the history was lost.

Does what `kubernetes.informer.SharedInformer` does, which for dynamic objects never learns the resourceVersion to go on
from, writes tracebacks to the log, and cannot be told apart from a dead connection.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from fluobook.clients.kube.watching import Change, WatchRequest
from fluobook.errors import AccessDenied, Conflict, OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fluobook.clients.kube.client import Kube

    Key = tuple[str, str]

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between attempts when the connection is lost; doubled each time."""


class Informer:
    """What is there of one kind, kept up to date.

    Args:
        kube: the cluster.
        api_version: of the kind.
        kind: the kind.
        on_change: called for every change.
        on_error: called when the connection is lost.

    Attributes:
        synced: set once the first list is complete.
    """

    def __init__(
        self,
        kube: Kube,
        api_version: str,
        kind: str,
        on_change: Callable[[Change], None],
        on_error: Callable[[OutsideError], None],
    ) -> None:
        self._kube = kube
        self._what = (api_version, kind)
        self._on_change = on_change
        self._on_error = on_error
        self._select: dict[str, str] = {"namespace": "", "labels": "", "fields": ""}
        self._items: dict[Key, Change] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._request: WatchRequest | None = None
        self._thread: threading.Thread | None = None
        self.synced = threading.Event()

    def select(self, *, namespace: str = "", labels: str = "", fields: str = "") -> None:
        """Follow only these objects; before `start`."""
        self._select = {"namespace": namespace, "labels": labels, "fields": fields}

    def start(self) -> None:
        """Begin, in a daemon thread."""
        self._thread = threading.Thread(target=self._run, name=f"inform {self._what[1]}", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End, and wait for the thread; no change is told after this returns."""
        self._stopped.set()
        if self._request is not None:
            self._request.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def items(self) -> list[dict[str, Any]]:
        """What is there now, by namespace and name; not to be changed."""
        with self._lock:
            changes = [self._items[key] for key in sorted(self._items)]
        return [change.object for change in changes]

    def changes(self, seconds: float | None = None) -> Iterator[Change]:
        """The same as an iterator in the caller's thread; for some seconds, or for ever.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        until = None if seconds is None else time.monotonic() + seconds
        version = ""
        while not self._stopped.is_set() and (until is None or time.monotonic() < until):
            if not version:
                version = yield from self._listed()
            try:
                version = yield from self._watched(version, until)
            except Conflict as error:
                if error.code not in ("Expired", "Gone", "410"):
                    raise
                version = ""

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                for change in self.changes():
                    pause = FIRST_PAUSE
                    if self._stopped.is_set():
                        return
                    self._on_change(change)
            except OutsideError as error:
                if self._stopped.is_set():
                    return
                self._on_error(error)
                if isinstance(error, AccessDenied):
                    pause = LONGEST_PAUSE
                self._stopped.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _listed(self) -> Generator[Change, None, str]:
        """What is there as changes against what was known; gives the version to watch from."""
        objs, version = self._kube.snapshot(*self._what, **self._select)
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

    def _watched(self, version: str, until: float | None) -> Generator[Change, None, str]:
        path = self._kube.transport.kind(*self._what).path(namespace=self._select["namespace"])
        query = {"labelSelector": self._select["labels"], "fieldSelector": self._select["fields"]}
        self._request = WatchRequest(self._kube, path, query)
        if self._stopped.is_set():
            return version
        left = None if until is None else until - time.monotonic()
        for key, change in self._request.changes(version, left):
            with self._lock:
                if change.type == "DELETED":
                    self._items.pop(key, None)
                else:
                    self._items[key] = change
            yield change
            if until is not None and time.monotonic() >= until:
                break
        return self._request.version
