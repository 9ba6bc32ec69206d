"""A store that goes back to what a snapshot has."""

from __future__ import annotations

import asyncio
from typing import Any

from fluobook_lab.kube import snapshots
from fluobook_lab.kube.store import SYSTEM_NAMESPACES, Store

from fluobook.kubernetes.snapshot import SYSTEM, read

SPEC: dict[str, Any] = {
    "group": "example.org",
    "names": {"plural": "shops", "kind": "Shop", "singular": "shop"},
    "scope": "Namespaced",
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "shops.example.org"},
    "spec": SPEC,
}


def named(kind: str, name: str, api_version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}}


def test_what_was_written_since_is_gone_and_what_was_deleted_is_back() -> None:
    store = Store()
    store.create(DEFINITION)
    kept = store.create(named("Shop", "kept", "example.org/v1"))
    data = snapshots.written(store.contents(), {}, store.storage.revision)
    assert read(data).has(SYSTEM, store.get("v1", "Namespace", "kube-system")["metadata"]["uid"])
    store.create(named("ConfigMap", "later"))
    store.delete("example.org/v1", "Shop", "kept", "default")
    store.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "shops.example.org")
    events: asyncio.Queue[Any] = store.storage.subscribe(("", "configmaps"))
    store.restore(*snapshots.restored(data))
    assert store.get("example.org/v1", "Shop", "kept", "default") == kept
    assert store.list("v1", "ConfigMap") == []
    assert store.storage.revision == read(data).revision
    assert [events.get_nowait().type for _ in range(events.qsize())] == ["DELETED", "GONE"]


def test_without_a_snapshot_the_cluster_is_new() -> None:
    store = Store()
    store.create(DEFINITION)
    store.restore([], 1)
    assert store.list("example.org/v1", "Shop") == []
    assert store.registry.find("example.org/v1", "Shop") is None
    assert sorted(obj["metadata"]["name"] for obj in store.list("v1", "Namespace")) == sorted(SYSTEM_NAMESPACES)
