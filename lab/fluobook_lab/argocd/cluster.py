"""The controller's view of the cluster: which live objects belong to which Application, and word when one changes.

One watch a kind, as Argo CD's cluster cache has; the kinds of a CustomResourceDefinition are followed as they come.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from fluobook_lab.argocd.names import TRACKING, Key, annotation, key_of, tracking_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Event
    from fluobook_lab.kube.store import Store

UNFOLLOWED = {
    ("", "events"),
    ("", "pods"),
    ("apps", "replicasets"),
    ("apps", "controllerrevisions"),
    ("coordination.k8s.io", "leases"),
    ("discovery.k8s.io", "endpointslices"),
    ("", "endpoints"),
    ("events.k8s.io", "events"),
}
"""Kinds that change often and that nobody puts into a repository."""


class Cluster:
    """Follows the store.

    Args:
        store: the lab's Kubernetes.
        changed: called with the Application's name ("" if none) and the object whenever one changes.
    """

    def __init__(self, store: Store, changed: Callable[[str, Obj], None]) -> None:
        self.store = store
        self._changed = changed
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._owned: defaultdict[str, dict[Key, Obj]] = defaultdict(dict)
        self._owner: dict[Key, str] = {}

    def start(self) -> None:
        """Follow every kind that is served."""
        for resource in self.store.registry:
            self._follow(resource)

    async def stop(self) -> None:
        """Follow nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def owned(self, app: str) -> dict[Key, Obj]:
        """The live objects that carry an Application's tracking id; not to be changed."""
        return dict(self._owned[app])

    def live(self, obj: Obj) -> Obj | None:
        """The object as it is now, None if there is none or its kind is not served; not to be changed."""
        resource = self.store.registry.find(obj["apiVersion"], obj["kind"])
        if resource is None:
            return None
        metadata = obj["metadata"]
        return self.store.storage.get(resource.store_key, (metadata.get("namespace", ""), metadata["name"]))

    def namespaced(self, obj: Obj) -> bool:
        """Whether objects of this kind live in namespaces; true if the kind is not served."""
        resource = self.store.registry.find(obj.get("apiVersion", ""), obj.get("kind", ""))
        return resource is None or resource.namespaced

    def api_versions(self) -> tuple[str, ...]:
        """What charts may ask for: "apps/v1" and "apps/v1/Deployment"."""
        served = list(self.store.registry)
        return tuple(sorted({one.api_version for one in served} | {f"{one.api_version}/{one.kind}" for one in served}))

    def _follow(self, resource: Resource) -> None:
        if not resource.storable or resource.store_key in UNFOLLOWED or resource.store_key in self._tasks:
            return
        watch = self.store.watch(resource.api_version, resource.kind)
        for _, obj in self.store.storage.scan(resource.store_key):
            self._keep(obj)

        async def follow() -> None:
            try:
                async for event in watch:
                    self._take(event)
            finally:
                watch.close()

        self._tasks[resource.store_key] = asyncio.create_task(follow(), name=f"argocd {resource.qualified}")

    def _take(self, event: Event) -> None:
        obj = event.object
        before = self._owner.get(key_of(obj), "")
        if event.type == "DELETED":
            self._forget(key_of(obj))
        else:
            self._keep(obj)
        if obj["kind"] == "CustomResourceDefinition":
            for resource in list(self.store.registry):
                if resource.custom:
                    self._follow(resource)
        now = self._owner.get(key_of(obj), "")
        for app in {before, now} - {""} or {""}:
            self._changed(app, obj)

    def _keep(self, obj: Obj) -> None:
        key = key_of(obj)
        self._forget(key)
        told = annotation(obj, TRACKING)
        app = told.partition(":")[0]
        if app and told == tracking_id(app, obj):  # a copy made by somebody else carries another object's id
            self._owned[app][key] = obj
            self._owner[key] = app

    def _forget(self, key: Key) -> None:
        if app := self._owner.pop(key, ""):
            self._owned[app].pop(key, None)
