"""Watches for the lab's own parts: an asynchronous stream of what happened to the objects of one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluobook_lab.kube.storage import Event, Key, Storage


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
