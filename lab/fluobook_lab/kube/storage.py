"""Where objects are stored: one revision counter, the objects, and the history that watches are served from.

Takes the part of etcd and the watch cache. A stored object is never changed in place: every write stores a new one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import expired
from fluobook_lab.kube.objects import clone
from fluobook_lab.kube.resources import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

Key = tuple[str, str]
"""(group, plural) of a resource, or (namespace, name) of an object."""

HISTORY = 20_000
"""Events kept for each resource; a watch that asks for older ones gets 410 Gone."""

EVERYTHING: Key = ("*", "*")
"""All resources in `Storage.subscribe`."""


@dataclass(frozen=True)
class Event:
    """One change of one object; `previous` is what stood there before (None if nothing)."""

    revision: int
    type: str
    object: Obj
    previous: Obj | None = None
    encoded: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)


class Storage:
    """All objects of the cluster, by resource and by namespace and name."""

    def __init__(self) -> None:
        self.revision = 1
        self._objects: defaultdict[Key, dict[Key, Obj]] = defaultdict(dict)
        self._history: defaultdict[Key, deque[Event]] = defaultdict(lambda: deque(maxlen=HISTORY))
        self._compacted: defaultdict[Key, int] = defaultdict(int)
        self._queues: defaultdict[Key, list[asyncio.Queue[Event]]] = defaultdict(list)

    def get(self, resource: Key, key: Key) -> Obj | None:
        """The object as it is stored; not to be changed."""
        return self._objects[resource].get(key)

    def scan(self, resource: Key, namespace: str = "", revision: int = 0) -> list[tuple[Key, Obj]]:
        """All objects of a resource, of one namespace if it is named, in the order of their keys.

        Args:
            resource: whose.
            namespace: only this one's, if it is named.
            revision: as they were then; 0 is now.
        """
        objects = (self._at(resource, revision) if revision else self._objects[resource]).items()
        return sorted((item for item in objects if not namespace or item[0][0] == namespace), key=lambda item: item[0])

    def _at(self, resource: Key, revision: int) -> dict[Key, Obj]:
        """The objects at an earlier revision: what happened since, undone."""
        objects = dict(self._objects[resource])
        for event in reversed(self._history[resource]):
            if event.revision <= revision:
                break
            metadata = event.object["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            objects.pop(key, None)
            if event.previous is not None:
                objects[key] = event.previous
        return objects

    def put(self, resource: Key, key: Key, obj: Obj) -> Obj:
        """Store an object under a new revision, and notify the watches."""
        previous = self._objects[resource].get(key)
        self._stamp(obj)
        self._objects[resource][key] = obj
        self._publish(resource, Event(self.revision, "MODIFIED" if previous else "ADDED", obj, previous))
        return obj

    def remove(self, resource: Key, key: Key) -> Obj:
        """Remove an object, and notify the watches."""
        previous = self._objects[resource].pop(key)
        last = {**previous, "metadata": dict(previous["metadata"])}
        self._stamp(last)
        self._publish(resource, Event(self.revision, "DELETED", last, previous))
        return last

    def resources(self) -> list[Key]:
        """The resources that have objects."""
        return [resource for resource, objects in self._objects.items() if objects]

    def subscribe(self, resource: Key) -> asyncio.Queue[Event]:
        """A queue that gets every event of a resource from now on; of all of them for `EVERYTHING`."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queues[resource].append(queue)
        return queue

    def unsubscribe(self, resource: Key, queue: asyncio.Queue[Event]) -> None:
        """Stop filling a queue."""
        self._queues[resource].remove(queue)

    def since(self, resource: Key, revision: int) -> Iterator[Event]:
        """The events after a revision.

        Raises:
            ApiError: 410, they are no longer all there.
        """
        if self.is_compacted(resource, revision):
            raise expired(f"too old resource version: {revision} ({self._compacted[resource]})")
        return iter([event for event in self._history[resource] if event.revision > revision])

    def signal(self, resource: Key, name: str) -> None:
        """Notify the subscribers of a resource of an event that changes no object."""
        for queue in self._queues[resource]:
            queue.put_nowait(Event(self.revision, "SIGNAL", {"metadata": {"name": name}}))

    def is_compacted(self, resource: Key, revision: int) -> bool:
        """Whether events after a revision may have been forgotten."""
        return revision < self._compacted[resource]

    def compact(self, resource: Key) -> None:
        """Forget the history of a resource, as etcd does after some minutes, and break its watches off with 410."""
        self._history[resource].clear()
        self._compacted[resource] = self.revision
        gone = expired(f"too old resource version: {self.revision}").status()
        for queue in self._queues[resource]:
            queue.put_nowait(Event(self.revision, "GONE", gone))

    def restore(self, contents: Mapping[Key, Mapping[Key, Obj]], revision: int) -> None:
        """Go back to other contents and their revision, as etcd does when a snapshot is restored.

        Clients notice only that their watches end: the revisions that they know may come again. The lab's own
        controllers, which are no processes that could be restarted, receive what changed.
        """
        for resource in {*self._objects, *contents}:
            before, after = self._objects[resource], contents.get(resource, {})
            self._objects[resource] = dict(after)
            for key in {*before, *after}:
                if before.get(key) != after.get(key):
                    kind = "DELETED" if key not in after else "MODIFIED" if key in before else "ADDED"
                    obj = after.get(key) or before[key]
                    self._publish(resource, Event(revision, kind, obj, before.get(key)))
        self.revision = revision
        for resource in {*self._objects, *self._queues}:
            self.compact(resource)

    def forget(self, resource: Key) -> None:
        """Drop all objects of a resource that is served no longer."""
        for key in list(self._objects[resource]):
            self.remove(resource, key)

    def _stamp(self, obj: Obj) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)

    def _publish(self, resource: Key, event: Event) -> None:
        history = self._history[resource]
        if len(history) == HISTORY:
            self._compacted[resource] = history[0].revision
        history.append(event)
        for queue in (*self._queues[resource], *self._queues[EVERYTHING]):
            queue.put_nowait(event)


class Watch:
    """Changes of one resource; `async for event in watch`, and `close()` at the end.

    Args:
        storage: where the objects are.
        resource: (group, plural).
        namespace: only this namespace's objects, if it is named.
    """

    def __init__(self, storage: Storage, resource: Key, namespace: str = "") -> None:
        self._storage = storage
        self._resource = resource
        self._namespace = namespace
        self._queue = storage.subscribe(resource)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        """The next change: `type` ("ADDED", "MODIFIED", "DELETED") and `object` (shared: do not change it)."""
        while True:
            event = await self._queue.get()
            if event.type == "GONE":
                continue
            if not self._namespace or event.object["metadata"].get("namespace") == self._namespace:
                return event

    def close(self) -> None:
        """Stop listening."""
        self._storage.unsubscribe(self._resource, self._queue)


class Reads:
    """Reading and watching by apiVersion and kind: what the real engine's mirror needs of the embedded API.

    Attributes:
        registry: the kinds that are served.
        storage: the objects.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.storage = Storage()

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj | None:
        """A copy of one object, None if it or its kind does not exist."""
        resource = self.registry.find(api_version, kind)
        obj = self.storage.get(resource.store_key, (namespace, name)) if resource else None
        return in_version(resource, obj) if resource and obj else None

    def view(self, api_version: str, kind: str, namespace: str = "") -> list[Obj]:
        """The stored objects of a kind, not to be changed: for controllers, which read often."""
        resource = self.registry.find(api_version, kind)
        return [obj for _, obj in self.storage.scan(resource.store_key, namespace)] if resource else []

    def watch(self, api_version: str, kind: str, namespace: str = "") -> Watch:
        """Every change of a kind from now on; close it when done.

        Raises:
            ApiError: 404, no such kind.
        """
        return Watch(self.storage, self.registry.by_kind(api_version, kind).store_key, namespace)

    def _address(self, obj: Obj) -> tuple[Resource, Key]:
        resource = self.registry.by_kind(obj.get("apiVersion", ""), obj.get("kind", ""))
        namespace = obj["metadata"].get("namespace") or "default" if resource.namespaced else ""
        return resource, (namespace, obj["metadata"].get("name", ""))


def in_version(resource: Resource, obj: Obj) -> Obj:
    """A copy in the requested version; conversion between versions changes the apiVersion alone."""
    return {**clone(obj), "apiVersion": resource.api_version}
