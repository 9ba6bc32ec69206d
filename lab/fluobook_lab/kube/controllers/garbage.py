"""Garbage collection: dependents of deleted owners, and the content of deleted namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.access import Write
from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.lifecycle import FOREGROUND, ORPHAN
from fluobook_lab.kube.storage import EVERYTHING

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


class GarbageCollector:
    """Follows every deletion there is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Collect until cancelled."""
        queue = self._store.storage.subscribe(EVERYTHING)
        try:
            while True:
                event = await queue.get()
                if event.type == "DELETED":
                    self._owner_gone(event.object)
                elif event.type == "MODIFIED" and event.object["metadata"].get("deletionTimestamp"):
                    self._owner_going(event.object)
                elif event.type in ("ADDED", "MODIFIED") and event.object["metadata"].get("ownerReferences"):
                    self._orphaned(event.object)
        finally:
            self._store.storage.unsubscribe(EVERYTHING, queue)

    def _owner_gone(self, owner: Obj) -> None:
        for resource, key, obj in self._dependents(owner["metadata"]["uid"]):
            if len(obj["metadata"]["ownerReferences"]) == 1:
                _delete(self._store, resource, key, {"propagationPolicy": "Background"})
        for reference in owner["metadata"].get("ownerReferences") or []:
            self._check_owner(reference, owner["metadata"].get("namespace", ""))

    def _orphaned(self, obj: Obj) -> None:
        """Delete what belongs to nothing that is there."""
        resource = self._store.registry.find(obj["apiVersion"], obj["kind"])
        namespace = obj["metadata"].get("namespace", "")
        if resource is not None and not any(
            self._is_there(reference, namespace) for reference in obj["metadata"]["ownerReferences"]
        ):
            _delete(self._store, resource, (namespace, obj["metadata"]["name"]), {"propagationPolicy": "Background"})

    def _is_there(self, reference: Obj, namespace: str) -> bool:
        owner = self._store.registry.find(reference.get("apiVersion", ""), reference.get("kind", ""))
        if owner is None:
            return True  # nobody knows
        key = (namespace if owner.namespaced else "", reference.get("name", ""))
        owner_obj = self._store.storage.get(owner.store_key, key)
        return owner_obj is not None and owner_obj["metadata"]["uid"] == reference.get("uid")

    def _owner_going(self, owner: Obj) -> None:
        finalizers = owner["metadata"].get("finalizers") or []
        if FOREGROUND in finalizers:
            dependents = self._dependents(owner["metadata"]["uid"])
            for resource, key, obj in dependents:
                if not obj["metadata"].get("deletionTimestamp"):
                    _delete(self._store, resource, key, {"propagationPolicy": "Foreground"})
            if not self._dependents(owner["metadata"]["uid"]):
                self._release(owner, FOREGROUND)
        elif ORPHAN in finalizers:
            for resource, key, obj in self._dependents(owner["metadata"]["uid"]):
                uid = owner["metadata"]["uid"]
                left = [entry for entry in obj["metadata"]["ownerReferences"] if entry.get("uid") != uid]
                body = {"metadata": {"ownerReferences": left or None}}
                self._store.change(resource, key, body, "application/merge-patch+json", Write())
            self._release(owner, ORPHAN)

    def _check_owner(self, reference: Obj, namespace: str) -> None:
        """A dependent went: its owner may have waited for that."""
        owner = self._store.find(reference["apiVersion"], reference["kind"], reference["name"], namespace)
        if owner and owner["metadata"].get("deletionTimestamp"):
            self._owner_going(owner)

    def _dependents(self, uid: str) -> list[tuple[Resource, Key, Obj]]:
        resources = {resource.store_key: resource for resource in self._store.registry}
        return [
            (resources[store_key], key, obj)
            for store_key in self._store.storage.resources()
            if store_key in resources
            for key, obj in self._store.storage.scan(store_key)
            if any(reference.get("uid") == uid for reference in obj["metadata"].get("ownerReferences") or ())
        ]

    def _release(self, owner: Obj, finalizer: str) -> None:
        metadata = owner["metadata"]
        left = [entry for entry in metadata["finalizers"] if entry != finalizer]
        resource = self._store.registry.find(owner["apiVersion"], owner["kind"])
        if resource is not None:
            body = {"metadata": {"finalizers": left or None}}
            key = (metadata.get("namespace", ""), metadata["name"])
            self._store.change(resource, key, body, "application/merge-patch+json", Write())


def _delete(store: Store, resource: Resource, key: Key, options: Obj) -> None:
    try:
        store.remove(resource, key, options, Write())
    except ApiError as error:
        if error.reason != "NotFound":
            raise


RESOURCE = ("", "namespaces")
ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap in which each namespace has the cluster's CA."""


class Namespaces:
    """Manages namespaces.

    Args:
        store: the cluster.
        ca: the cluster's CA certificate, PEM.
    """

    def __init__(self, store: Store, ca: str) -> None:
        self._store = store
        self.ca = ca
        self.sources: Sources = {RESOURCE: own_key, ("", "serviceaccounts"): _home, ("", "configmaps"): _home}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        namespace = self._store.find("v1", "Namespace", key[1])
        if namespace is None:
            return None
        if namespace["metadata"].get("deletionTimestamp"):
            return self._empty(namespace, key[1])
        self._provide("ServiceAccount", "default", key[1], {})
        self._provide("ConfigMap", ROOT_CA, key[1], {"data": {"ca.crt": self.ca}})
        return None

    def _provide(self, kind: str, name: str, namespace: str, content: Obj) -> None:
        if self._store.find("v1", kind, name, namespace) is None:
            metadata = {"name": name, "namespace": namespace}
            self._store.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})

    def _empty(self, namespace: Obj, name: str) -> float | None:
        """Delete what is left inside; once nothing is, let the namespace go."""
        left = 0
        for resource in {r.store_key: r for r in self._store.registry if r.namespaced and r.storable}.values():
            for key, obj in self._store.storage.scan(resource.store_key, name):
                left += 1
                if not obj["metadata"].get("deletionTimestamp"):
                    _delete(self._store, resource, key, {})
        if left:
            return 0.5
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": []}}
        self._store.update(body, Write(subresource="finalize"))
        return None


def _home(obj: Obj) -> list[Key]:
    """Their own namespace, and only when what went is something that it must have."""
    if obj["metadata"]["name"] in ("default", ROOT_CA):
        return [("", obj["metadata"]["namespace"])]
    return []
