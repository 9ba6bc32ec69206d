"""The resources (COSI) of a node: stored by type and id, versioned, watched; and which types a client may read."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NAMESPACES = """
    cluster cluster-raw config controlplane cri etcd files hardware k8s kubespan meta network network-config perf
    runtime secrets security
"""
NAMESPACES = frozenset(_NAMESPACES.split())


def is_supported(type_: str) -> bool:
    """Whether a type is one of Talos'."""
    return type_.lower().endswith(".talos.dev")


def is_sensitive(type_: str) -> bool:
    """Whether only administrators may read a type."""
    return type_.lower() == "machineconfigs.config.talos.dev" or type_.lower().endswith(".secrets.talos.dev")


class Key(NamedTuple):
    """The identity of a resource."""

    namespace: str
    type: str
    id: str


@dataclass(frozen=True)
class Stored:
    """One resource at one version; `spec` is the content of its YAML."""

    key: Key
    spec: Any
    version: int = 1
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


class Change(NamedTuple):
    """A change of a resource: "CREATED", "UPDATED", "DESTROYED"; `old` is set for an update."""

    type: str
    resource: Stored
    old: Stored | None = None


class State:
    """All resources of one node; computed only when a client reads or watches them.

    Args:
        describe: returns the current resources.
    """

    def __init__(self, describe: Callable[[], Iterable[tuple[Key, Any]]]) -> None:
        self._describe = describe
        self._stale = True
        self._resources: dict[Key, Stored] = {}
        self._watchers: list[asyncio.Queue[Change]] = []

    def get(self, key: Key) -> Stored | None:
        """One resource."""
        self._refresh()
        return self._resources.get(key)

    def list(self, namespace: str, type_: str) -> list[Stored]:
        """The resources of a type, sorted by id."""
        self._refresh()
        items = (item for key, item in self._resources.items() if key[:2] == (namespace, type_))
        return sorted(items, key=lambda item: item.key.id)

    def touch(self) -> None:
        """Mark the resources as outdated; watchers get the changes at once."""
        self._stale = True
        if self._watchers:
            self._refresh()

    def watch(self) -> asyncio.Queue[Change]:
        """A queue that receives every change from now on, until `unwatch`."""
        self._refresh()
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._watchers.append(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[Change]) -> None:
        """Stop filling a queue."""
        self._watchers.remove(queue)

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        for change in list(self._changes(dict(self._describe()))):
            if change.type == "DESTROYED":
                del self._resources[change.resource.key]
            else:
                self._resources[change.resource.key] = change.resource
            for queue in self._watchers:
                queue.put_nowait(change)

    def _changes(self, specs: dict[Key, Any]) -> Iterator[Change]:
        for key, old in self._resources.items():
            if key not in specs:
                yield Change("DESTROYED", old)
        for key, spec in specs.items():
            before = self._resources.get(key)
            if before is None:
                yield Change("CREATED", Stored(key, spec))
            elif before.spec != spec:
                new = replace(before, spec=spec, version=before.version + 1, updated=time.time())
                yield Change("UPDATED", new, before)
