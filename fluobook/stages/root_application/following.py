"""One watch on all Applications, shared by everybody who waits for one of them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.gitops.root import NAMESPACE
from fluobook.stages.root_application.state import API, KIND, State, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.clients.kube import Change, Kube
    from fluobook.clients.kube.informer import Informer
    from fluobook.errors import OutsideError

    Obj = dict[str, Any]

LOOK = 1.0
"""Seconds after which a waiter looks again though nothing changed: Git may have."""


@dataclass(frozen=True)
class Seen:
    """The Applications at one moment, and those failures that are older than the wait."""

    objects: dict[str, Obj]
    states: dict[str, State]
    old_failures: frozenset[tuple[str, str]]

    def failed(self, name: str) -> bool:
        """Whether an Application failed since the wait began."""
        state = self.states.get(name)
        return state is not None and state.failed and (name, state.started) not in self.old_failures


class Following:
    """Follows the Applications while somebody waits.

    Args:
        kube: the cluster.
        seconds: deadline of the whole wait, which begins with the first waiter.
    """

    def __init__(self, kube: Kube, seconds: float) -> None:
        self._kube = kube
        self._seconds = seconds
        self._changed = threading.Condition()
        self._objects: dict[str, Obj] = {}
        self._states: dict[str, State] = {}
        self._old: frozenset[tuple[str, str]] = frozenset()
        self._informer: Informer | None = None
        self._waiters = 0
        self._until = 0.0
        self.trouble: OutsideError | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Wait along: the first one starts the watch, the last one ends it."""
        with self._changed:
            self._waiters += 1
            if self._waiters == 1:
                self._start()
        try:
            yield
        finally:
            with self._changed:
                self._waiters -= 1
                ending = self._informer if self._waiters == 0 else None
            if ending:
                ending.stop()

    def wait(self, look: Callable[[Seen], bool]) -> bool:
        """Look at every change until the look is content; False when the deadline passed before."""
        while True:
            with self._changed:
                seen = Seen(dict(self._objects), dict(self._states), self._old)
            if look(seen):
                return True
            with self._changed:
                left = self._until - time.monotonic()
                if left <= 0:
                    return False
                if self._states == seen.states:
                    self._changed.wait(min(left, LOOK))

    def _start(self) -> None:
        self._objects = {obj["metadata"]["name"]: obj for obj in self._kube.list(API, KIND, NAMESPACE)}
        self._states = {name: state_of(obj) for name, obj in self._objects.items()}
        self._old = frozenset((name, state.started) for name, state in self._states.items() if state.failed)
        self._until = time.monotonic() + self._seconds
        self._informer = self._kube.inform(API, KIND, self._take, namespace=NAMESPACE, on_error=self._lost)

    def _take(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        with self._changed:
            if change.type == "DELETED":
                self._objects.pop(name, None)
                self._states.pop(name, None)
            else:
                self._objects[name] = change.object
                self._states[name] = state_of(change.object)
            self.trouble = None
            self._changed.notify_all()

    def _lost(self, error: OutsideError) -> None:
        self.trouble = error
