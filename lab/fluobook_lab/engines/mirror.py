"""The real cluster's objects in a store like the embedded cluster's, and the controllers that work on it.

No program simulates Cilium's addresses, ingress-nginx, storage and the platform's operators: the embedded cluster's
controllers do. They read what watches brought; their writes are visible here at once and sent in order. If the API
refuses one, the next event of the real object corrects the store, and controllers run again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from fluobook_lab.engines.api import FAILED, JSON_TYPE, MERGE, Api
from fluobook_lab.engines.webhooks import Webhooks
from fluobook_lab.kube.controllers import loop
from fluobook_lab.kube.controllers.backups import Backups
from fluobook_lab.kube.controllers.created import Created, Ends
from fluobook_lab.kube.controllers.gateways import Gateways
from fluobook_lab.kube.controllers.issuing import Issuing
from fluobook_lab.kube.controllers.operators import Operators
from fluobook_lab.kube.controllers.services import Ingresses, LoadBalancers
from fluobook_lab.kube.controllers.volumes import Volumes
from fluobook_lab.kube.objects import Obj, clone, name_of, namespace_of
from fluobook_lab.kube.resources import custom_resources
from fluobook_lab.kube.storage import Event, Key, Reads, Storage

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Controller
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.store import Store

DEFINITIONS: Key = ("apiextensions.k8s.io", "customresourcedefinitions")
READ: frozenset[Key] = frozenset(
    {DEFINITIONS, ("", "pods"), ("", "namespaces"), ("", "nodes"), ("", "secrets"), ("", "persistentvolumes")}
    | {("networking.k8s.io", "networkpolicies"), ("coordination.k8s.io", "leases")}
    | {("cilium.io", "ciliumloadbalancerippools"), ("cilium.io", "ciliuml2announcementpolicies")}
)
"""Kinds that controllers and flows read besides those that trigger them."""
RETRY = 0.5
"""Real seconds until a broken watch is started again."""

_log = logging.getLogger(__name__)


class MirroredStorage(Storage):
    """Objects as another server stored them, with its resource versions."""

    def replicate(self, resource: Key, key: Key, obj: Obj) -> None:
        """Store an object unchanged."""
        previous = self.get(resource, key)
        self._objects[resource][key] = obj
        self._notify(resource, "MODIFIED" if previous else "ADDED", obj, previous)

    def drop(self, resource: Key, key: Key) -> None:
        """Remove an object, if it exists."""
        previous = self._objects[resource].pop(key, None)
        if previous is not None:
            self._notify(resource, "DELETED", previous, previous)

    def _notify(self, resource: Key, kind: str, obj: Obj, previous: Obj | None) -> None:
        self.revision += 1
        self._publish(resource, Event(self.revision, kind, obj, previous))


class MirroredStore(Reads):
    """Reads as any store, with those writes that the lab's controllers make."""

    def __init__(self) -> None:
        super().__init__()
        self.storage: MirroredStorage = MirroredStorage()
        self.outbox: asyncio.Queue[tuple[str, str, Any, Resource, Key]] = asyncio.Queue()

    def create(self, obj: Obj, *args: Any) -> Obj:
        """As in `Store`, without waiting for the API."""
        del args
        resource, key = self._address(obj)
        created = clone(obj)
        created["metadata"].setdefault("uid", "")
        self.storage.replicate(resource.store_key, key, created)
        self.outbox.put_nowait(("POST", "", clone(obj), resource, key))
        return created

    def patch(self, api_version: str, kind: str, name: str, namespace: str = "", **options: Any) -> Obj:
        """As in `Store`: a merge patch."""
        resource = self.registry.by_kind(api_version, kind)
        key = (namespace if resource.namespaced else "", name)
        self.outbox.put_nowait(("PATCH", f"/{name}", options["body"], resource, key))
        return clone(self.storage.get(resource.store_key, key) or {"metadata": {"name": name, "namespace": namespace}})

    def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> None:
        """As in `Store`: it is gone here when the API has deleted it."""
        resource = self.registry.by_kind(api_version, kind)
        key = (namespace if resource.namespaced else "", name)
        self.outbox.put_nowait(("DELETE", f"/{name}", None, resource, key))

    def set_status(self, obj: Obj, status: Obj) -> Obj | None:
        """As in `Store`."""
        resource, key = self._address(obj)
        current = self.storage.get(resource.store_key, key)
        if current is None or current.get("status") == status:
            return current
        changed = {**current, "status": clone(status)}
        self.storage.replicate(resource.store_key, key, changed)
        self.outbox.put_nowait(("PATCH", f"/{key[1]}/status", {"status": clone(status)}, resource, key))
        return changed


class Mirror:
    """Keeps a store in step with the real cluster, and runs the lab's controllers on it.

    Args:
        clock: the lab's clock.
        seed: makes the controllers' delays the same in every run.
        faults: those of operators can happen.
        ports: the ports of this machine that API servers dial, by the `host:port` that they stand for.
    """

    def __init__(self, clock: Clock, seed: int, faults: Faults, ports: dict[str, int]) -> None:
        self._mirrored, self._clock = MirroredStore(), clock
        store = self.store = cast("Store", self._mirrored)  # whose other methods no controller calls
        self._webhooks = Webhooks(store, clock, ports)
        self._controllers: list[Controller] = [
            self._webhooks,
            LoadBalancers(store),
            Ingresses(store),
            Gateways(store),
            Volumes(store, clock, seed),
            Created(store),
            Ends(store, faults),
            Operators(store, clock, seed),
            Backups(store, faults),
            Issuing(store, clock, seed, faults),
        ]
        self._kinds = {key for controller in self._controllers for key in controller.sources} | READ
        self._watches: dict[Key, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, api: Api) -> None:
        """Begin."""
        await self._webhooks.start()
        work = [self._send(api), *(loop.run(self.store, self._clock, controller) for controller in self._controllers)]
        self._tasks = [asyncio.create_task(coroutine) for coroutine in work]
        for resource in list(self._mirrored.registry):
            self._follow(api, resource)

    async def stop(self) -> None:
        """End."""
        tasks = [*self._watches.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._webhooks.stop()

    def _follow(self, api: Api, resource: Resource) -> None:
        key = resource.store_key
        if key in self._kinds and key not in self._watches and resource.storable:
            self._watches[key] = asyncio.create_task(self._watch(api, resource))

    async def _watch(self, api: Api, resource: Resource) -> None:
        while True:
            try:
                await self._list_and_watch(api, resource)
            except FAILED as error:
                _log.info("watch of %s: %s", resource.qualified, error)
                await asyncio.sleep(RETRY)

    async def _list_and_watch(self, api: Api, resource: Resource) -> None:
        """List, then watch until the server ends it."""
        storage, path = self._mirrored.storage, f"{_root(resource)}/{resource.plural}"
        listed = await api.get(path)
        objects = {(namespace_of(obj), name_of(obj)): obj for obj in listed["items"]}
        for key in [key for key, _ in storage.scan(resource.store_key) if key not in objects]:
            storage.drop(resource.store_key, key)
        for obj in objects.values():
            self._put(api, resource, {**obj, "apiVersion": resource.api_version, "kind": resource.kind})
        async for event in api.watch(path, listed["metadata"]["resourceVersion"]):
            obj = event["object"]
            if event["type"] == "DELETED":
                storage.drop(resource.store_key, (namespace_of(obj), name_of(obj)))
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._put(api, resource, obj)

    def _put(self, api: Api, resource: Resource, obj: Obj) -> None:
        self._mirrored.storage.replicate(resource.store_key, (namespace_of(obj), name_of(obj)), obj)
        if resource.store_key == DEFINITIONS:
            served = custom_resources(obj)
            self._mirrored.registry.replace_custom(obj["spec"]["group"], obj["spec"]["names"]["plural"], served)
            for custom in served:
                self._follow(api, custom)

    async def _send(self, api: Api) -> None:
        while True:
            method, suffix, body, resource, key = await self._mirrored.outbox.get()
            root = f"{_root(resource)}/namespaces/{key[0]}" if resource.namespaced else _root(resource)
            media = MERGE if method == "PATCH" else JSON_TYPE
            try:
                await api.send(method, f"{root}/{resource.plural}{suffix}", body, media=media)
            except FAILED as error:
                _log.warning("%s %s %s: %s", method, resource.qualified, key, error)
                if method == "POST" and getattr(error, "reason", "") != "AlreadyExists":
                    self._mirrored.storage.drop(resource.store_key, key)


def _root(resource: Resource) -> str:
    return f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
