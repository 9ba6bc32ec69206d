"""Controllers on a mirror: what they create is visible at once, and complete only after the real API's event."""

from __future__ import annotations

from itertools import count

from fluobook_lab.engines.mirror import MirroredStore
from fluobook_lab.kube.controllers.volumes import Volumes

KEY = ("default", "data")


class Clock:
    """Every question for the time finds ten seconds gone."""

    def __init__(self) -> None:
        self._times = count(0, 10)

    def now(self) -> float:
        return float(next(self._times))


def test_a_claim_is_bound_only_after_the_api_has_given_it_a_uid() -> None:
    store = MirroredStore()
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}
    store.create({**head, "provisioner": "example.org/any"})
    spec = {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": KEY[1], "namespace": KEY[0]}
    claim = store.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    volumes = Volumes(store, Clock(), 1)  # type: ignore[arg-type]
    for _ in range(2):
        volumes.reconcile(KEY)
    assert store.view("v1", "PersistentVolume") == []
    stored = {**claim, "metadata": {**metadata, "uid": "7"}}
    store.storage.replicate(("", "persistentvolumeclaims"), KEY, stored)
    for _ in range(2):
        volumes.reconcile(KEY)
    assert [volume["metadata"]["name"] for volume in store.view("v1", "PersistentVolume")] == ["pvc-7"]
