"""The real cluster's objects in a store like the embedded cluster's own, so that the lab's parts work with both alike.

Reads come from what watches brought; writes are seen here at once and sent on in their order. What the API refuses is
told, and the next event from there puts things right: controllers look again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import aiohttp

from fluobook_lab.engines.requests import MERGE, Api
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import Obj, clone, name_of, namespace_of
from fluobook_lab.kube.resources import custom_resources
from fluobook_lab.kube.storage import Event, Key, Storage
from fluobook_lab.kube.store import SERVICE_CIDR, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.resources import Resource

DEFINITIONS: Key = ("apiextensions.k8s.io", "customresourcedefinitions")
AGAIN = 0.5
"""Real seconds until a watch that broke is begun anew."""

_log = logging.getLogger(__name__)
_LOST = (ApiError, OSError, aiohttp.ClientError, TimeoutError)


class MirroredStorage(Storage):
    """Objects as another server stored them, with its own revisions."""

    def take(self, resource: Key, key: Key, obj: Obj) -> None:
        """Put an object as it is."""
        previous = self.get(resource, key)
        self._objects[resource][key] = obj
        self._tell(resource, Event(self._next(), "MODIFIED" if previous else "ADDED", obj, previous))

    def drop(self, resource: Key, key: Key) -> None:
        """Take an object out, if it is there."""
        previous = self._objects[resource].pop(key, None)
        if previous is not None:
            self._tell(resource, Event(self._next(), "DELETED", previous, previous))

    def _next(self) -> int:
        self.revision += 1
        return self.revision


class MirroredStore(Store):
    """Reads as any store; of writes, it knows those that the lab's operators make."""

    def __init__(self) -> None:
        super(Store, self).__init__(0, SERVICE_CIDR)  # not a Store's own: it makes namespaces, which are there
        self.storage: MirroredStorage = MirroredStorage()
        self.outbox: asyncio.Queue[tuple[str, str, Any, Resource, Key]] = asyncio.Queue()

    def create(self, obj: Obj, *args: Any) -> Obj:
        """As in `Store`, without waiting for the API's word."""
        del args
        resource, key = self._address(obj)
        made = clone(obj)
        made["metadata"].setdefault("uid", "")
        self.storage.take(resource.store_key, key, made)
        self.outbox.put_nowait(("POST", "", clone(obj), resource, key))
        return made

    def patch(self, api_version: str, kind: str, name: str, namespace: str = "", **told: Any) -> Obj:
        """As in `Store`: a merge patch."""
        resource = self.registry.by_kind(api_version, kind)
        key = (namespace if resource.namespaced else "", name)
        self.outbox.put_nowait(("PATCH", f"/{name}", told["body"], resource, key))
        return clone(self.storage.get(resource.store_key, key) or {"metadata": {"name": name, "namespace": namespace}})

    def set_status(self, obj: Obj, status: Obj) -> Obj | None:
        """As in `Store`."""
        resource, key = self._address(obj)
        current = self.storage.get(resource.store_key, key)
        if current is None or current.get("status") == status:
            return current
        changed = {**current, "status": clone(status)}
        self.storage.take(resource.store_key, key, changed)
        self.outbox.put_nowait(("PATCH", f"/{key[1]}/status", {"status": clone(status)}, resource, key))
        return changed


class Mirror:
    """Follows the kinds that the lab's parts look at.

    Args:
        store: what it fills.
        wanted: group and plural of each; custom ones are followed once they are defined.
    """

    def __init__(self, store: MirroredStore, wanted: Iterable[Key]) -> None:
        self.store = store
        self._wanted = {DEFINITIONS, *wanted}
        self._following: dict[Key, asyncio.Task[None]] = {}
        self._sending: asyncio.Task[None] | None = None

    def start(self, api: Api) -> None:
        """Begin; returns at once."""
        self._sending = asyncio.create_task(self._send(api))
        for resource in list(self.store.registry):
            self._follow(api, resource)

    async def stop(self) -> None:
        """End."""
        tasks = [*self._following.values(), *([self._sending] if self._sending else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, api: Api, resource: Resource) -> None:
        if resource.store_key in self._wanted and resource.store_key not in self._following and resource.storable:
            self._following[resource.store_key] = asyncio.create_task(self._watch(api, resource))

    async def _watch(self, api: Api, resource: Resource) -> None:
        while True:
            try:
                await self._once(api, resource)
            except _LOST as error:
                _log.info("watch of %s: %s", resource.qualified, error)
                await asyncio.sleep(AGAIN)

    async def _once(self, api: Api, resource: Resource) -> None:
        """List, then watch until the server ends it."""
        storage, path = self.store.storage, f"{_root(resource)}/{resource.plural}"
        listed = await api.get(path)
        there = {(namespace_of(obj), name_of(obj)): obj for obj in listed["items"]}
        for gone in [place for place, _ in storage.scan(resource.store_key) if place not in there]:
            storage.drop(resource.store_key, gone)
        for obj in there.values():
            self._take(api, resource, {**obj, "apiVersion": resource.api_version, "kind": resource.kind})
        async for event in api.watch(path, listed["metadata"]["resourceVersion"]):
            obj = event["object"]
            if event["type"] == "DELETED":
                storage.drop(resource.store_key, (namespace_of(obj), name_of(obj)))
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._take(api, resource, obj)

    def _take(self, api: Api, resource: Resource, obj: Obj) -> None:
        self.store.storage.take(resource.store_key, (namespace_of(obj), name_of(obj)), obj)
        if resource.store_key == DEFINITIONS:
            served = custom_resources(obj)
            self.store.registry.replace_custom(obj["spec"]["group"], obj["spec"]["names"]["plural"], served)
            for one in served:
                self._follow(api, one)

    async def _send(self, api: Api) -> None:
        while True:
            method, suffix, body, resource, key = await self.store.outbox.get()
            root = f"{_root(resource)}/namespaces/{key[0]}" if resource.namespaced else _root(resource)
            media = MERGE if method == "PATCH" else "application/json"
            try:
                await api.send(method, f"{root}/{resource.plural}{suffix}", body, media=media)
            except _LOST as error:
                _log.warning("%s %s %s: %s", method, resource.qualified, key, error)
                if method == "POST" and getattr(error, "reason", "") != "AlreadyExists":
                    self.store.storage.drop(resource.store_key, key)


def _root(resource: Resource) -> str:
    return f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
