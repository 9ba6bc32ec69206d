"""Namespaces get their default ServiceAccount and the cluster's CA, and are emptied before they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.identity import Write

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

RESOURCE = ("", "namespaces")
_DESCRIPTION = "kubernetes.io/description"
_CA = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class Namespaces:
    """Looks after namespaces.

    Args:
        store: the cluster.
        ca: the cluster's CA certificate, PEM.
    """

    def __init__(self, store: Store, ca: str) -> None:
        self._store = store
        self._ca = ca
        self.sources: Sources = {RESOURCE: own_key, ("", "serviceaccounts"): _home, ("", "configmaps"): _home}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        namespace = self._store.find("v1", "Namespace", key[1])
        if namespace is None:
            return None
        if namespace["metadata"].get("deletionTimestamp"):
            return self._empty(namespace, key[1])
        self._provide("ServiceAccount", "default", key[1], {})
        self._provide("ConfigMap", "kube-root-ca.crt", key[1], {"data": {"ca.crt": self._ca}}, {_DESCRIPTION: _CA})
        return None

    def _provide(self, kind: str, name: str, namespace: str, content: Obj, notes: Obj | None = None) -> None:
        if self._store.find("v1", kind, name, namespace) is None:
            metadata = {"name": name, "namespace": namespace} | ({"annotations": notes} if notes else {})
            self._store.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})

    def _empty(self, namespace: Obj, name: str) -> float | None:
        """Delete what is left inside; once nothing is, let the namespace go."""
        left = 0
        for resource in {r.store_key: r for r in self._store.registry if r.namespaced and r.storable}.values():
            for key, obj in self._store.storage.scan(resource.store_key, name):
                left += 1
                if not obj["metadata"].get("deletionTimestamp"):
                    self._delete(resource, key)
        if left:
            return 0.5
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": []}}
        self._store.update(body, Write(subresource="finalize"))
        return None

    def _delete(self, resource: object, key: Key) -> None:
        try:
            self._store.remove(resource, key, {}, Write())  # type: ignore[arg-type]
        except ApiError as error:
            if error.code != 404:  # noqa: PLR2004
                raise


def _home(obj: Obj) -> list[Key]:
    """Their own namespace, and only when what went is something that it must have."""
    if obj["metadata"]["name"] in ("default", "kube-root-ca.crt"):
        return [("", obj["metadata"]["namespace"])]
    return []
