"""Longhorn's volumes in the lab: their replicas, and their health as pods and nodes come and go."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab.kube.controllers.longhorn import API, NAMESPACE, REBUILD_SECONDS, Longhorn
from fluobook_lab.kube.controllers.volumes import Volumes

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

CRD = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
AWAY = {"conditions": [{"type": "Ready", "status": "Unknown"}]}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


def crd(plural: str, kind: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1beta2", "served": True, "storage": True, "subresources": {"status": {}}, "schema": schema}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": "longhorn.io", "scope": "Namespaced", "names": names, "versions": [version]}
    return {**CRD, "metadata": {"name": f"{plural}.longhorn.io"}, "spec": spec}


@pytest.fixture
def cluster(store: Store) -> Store:
    for plural, kind in (
        ("volumes", "Volume"),
        ("replicas", "Replica"),
        ("backuptargets", "BackupTarget"),
        ("backups", "Backup"),
    ):
        store.create(crd(plural, kind))
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in ("wk-1", "wk-2"):
        store.set_status(store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}), READY)
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "driver.longhorn.io"}
    store.create({**kind, "metadata": {"name": "two"}, "parameters": {"numberOfReplicas": "2"}})
    claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": "data", "namespace": "default"}
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": claim}
    spec |= {"storageClassName": "two", "csi": {"driver": "driver.longhorn.io", "volumeHandle": "pvc-1"}}
    store.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-1"}, "spec": spec})
    return store


def use(store: Store) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = {"nodeName": "wk-1", "containers": [{"name": "main", "image": "lab.invalid/main:1"}], "volumes": volumes}
    store.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "namespace": "default"}, "spec": spec})


def health(store: Store) -> tuple[str, str]:
    status = store.get(API, "Volume", "pvc-1", NAMESPACE)["status"]
    return status["state"], status["robustness"]


def away(store: Store, name: str, status: dict[str, Any]) -> None:
    store.set_status(store.get("v1", "Node", name), status)


def test_a_volume_has_its_replicas_on_different_nodes_and_is_unknown_while_detached(cluster: Store) -> None:
    Longhorn(cluster, Clock()).reconcile(("", "pvc-1"))  # type: ignore[arg-type]
    assert health(cluster) == ("detached", "unknown")
    nodes = [replica["spec"]["nodeID"] for replica in cluster.list("longhorn.io/v1beta2", "Replica", NAMESPACE)]
    assert sorted(nodes) == ["wk-1", "wk-2"]


def test_a_volume_is_degraded_until_the_replicas_of_a_returned_node_are_rebuilt(cluster: Store) -> None:
    clock = Clock()
    longhorn = Longhorn(cluster, clock)  # type: ignore[arg-type]
    use(cluster)
    longhorn.reconcile(("", "pvc-1"))
    assert health(cluster) == ("attached", "healthy")
    away(cluster, "wk-2", AWAY)
    longhorn.reconcile(("", "pvc-1"))
    assert health(cluster) == ("attached", "degraded")
    away(cluster, "wk-2", READY)
    assert longhorn.reconcile(("", "pvc-1")) == REBUILD_SECONDS
    assert health(cluster) == ("attached", "degraded")
    clock.time += REBUILD_SECONDS
    assert longhorn.reconcile(("", "pvc-1")) is None
    assert health(cluster) == ("attached", "healthy")


def test_a_volume_without_any_replica_is_faulted(cluster: Store) -> None:
    use(cluster)
    longhorn = Longhorn(cluster, Clock())  # type: ignore[arg-type]
    longhorn.reconcile(("", "pvc-1"))
    for name in ("wk-1", "wk-2"):
        away(cluster, name, AWAY)
    longhorn.reconcile(("", "pvc-1"))
    assert health(cluster) == ("attached", "faulted")


def test_a_replica_that_has_failed_stays_so_until_its_time_is_removed(cluster: Store) -> None:
    longhorn = Longhorn(cluster, Clock())  # type: ignore[arg-type]
    use(cluster)
    longhorn.reconcile(("", "pvc-1"))
    for failed, robustness in (("2026-01-01T00:00:00Z", "degraded"), (None, "healthy")):
        body = {"spec": {"failedAt": failed}}
        replica = cluster.patch(API, "Replica", "pvc-1-r-0", NAMESPACE, body=body)
        (key,) = longhorn.sources["longhorn.io", "replicas"](replica)
        longhorn.reconcile(key)
        assert health(cluster) == ("attached", robustness)


def test_a_backup_target_is_available_with_a_url_and_the_keys_of_its_secret(cluster: Store) -> None:
    longhorn = Longhorn(cluster, Clock())  # type: ignore[arg-type]
    metadata = {"name": "default", "namespace": NAMESPACE}
    spec = {"backupTargetURL": "", "credentialSecret": "bucket"}
    cluster.create({"apiVersion": API, "kind": "BackupTarget", "metadata": metadata, "spec": spec})

    def reported() -> tuple[bool, str]:
        longhorn.reconcile((NAMESPACE, "default"))
        status = cluster.get(API, "BackupTarget", "default", NAMESPACE)["status"]
        return status["available"], status["conditions"][0]["message"]

    assert reported() == (False, "backup target URL is empty")
    cluster.patch(API, "BackupTarget", "default", NAMESPACE, body={"spec": {"backupTargetURL": "s3://a@b/"}})
    assert reported() == (False, "cannot find AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket", "namespace": NAMESPACE}}
    secret = cluster.create({**head, "stringData": keys})
    assert longhorn.sources["", "secrets"](secret) == [(NAMESPACE, "default")]
    assert reported() == (True, "")


def test_the_restore_of_the_how_to_binds_the_claim_to_a_volume_with_the_data_of_the_backup(cluster: Store) -> None:
    text = (Path(__file__).parents[3] / "docs/how-to/back-up-data.md").read_text()
    blocks = [textwrap.dedent(part.partition("```")[0]) for part in text.split("```yaml\n")[1:]]
    (volume,) = (yaml.safe_load(block) for block in blocks if "fromBackup" in block)
    (rest,) = (list(yaml.safe_load_all(block)) for block in blocks if "kind: PersistentVolumeClaim" in block)
    longhorn, volumes = Longhorn(cluster, Clock()), Volumes(cluster, Clock(), 1)  # type: ignore[arg-type]
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fluodata"}})
    (key,) = longhorn.sources["longhorn.io", "volumes"](cluster.create(volume))

    def reported() -> dict[str, Any]:
        longhorn.reconcile(key)
        status: dict[str, Any] = cluster.get(API, "Volume", key[1], NAMESPACE)["status"]
        return status

    assert (reported()["restoreRequired"], reported()["conditions"][0]["status"]) == (True, "False")
    for obj in rest:
        cluster.create(obj)
    metadata = {"name": "backup-1", "namespace": NAMESPACE}
    backup = cluster.create({"apiVersion": API, "kind": "Backup", "metadata": metadata, "spec": {}})
    done = cluster.set_status(backup, {"state": "Completed", "url": volume["spec"]["fromBackup"]})
    assert longhorn.sources["longhorn.io", "backups"](done or {}) == [key]
    assert (reported()["restoreRequired"], reported()["state"]) == (False, "detached")
    claim = rest[1]["metadata"]
    volumes.reconcile((claim["namespace"], claim["name"]))
    bound = cluster.get("v1", "PersistentVolumeClaim", claim["name"], claim["namespace"])
    assert (bound["status"]["phase"], bound["spec"]["volumeName"]) == ("Bound", volume["metadata"]["name"])
    mount = [{"name": "data", "persistentVolumeClaim": {"claimName": claim["name"]}}]
    spec = {"nodeName": "wk-1", "containers": [{"name": "main", "image": "lab.invalid/main:1"}], "volumes": mount}
    pod = {"name": "rabbitmq-server-0", "namespace": claim["namespace"]}
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec})
    assert (reported()["state"], reported()["robustness"]) == ("attached", "healthy")


@pytest.mark.parametrize(
    "change",
    [
        {"claimRef": {"namespace": "default", "name": "another"}},
        {"storageClassName": "other"},
        {"capacity": {"storage": "512Mi"}},
    ],
)
def test_a_claim_is_not_bound_to_a_volume_that_is_not_for_it(cluster: Store, change: dict[str, Any]) -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "two"}
    spec |= {"csi": {"driver": "driver.longhorn.io", "volumeHandle": "own"}, **change}
    cluster.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "own"}, "spec": spec})
    wanted = {"accessModes": ["ReadWriteOnce"], "storageClassName": "two", "volumeName": "own"}
    wanted["resources"] = {"requests": {"storage": "1Gi"}}
    metadata = {"name": "claim", "namespace": "default"}
    cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted})
    Volumes(cluster, Clock(), 1).reconcile(("default", "claim"))  # type: ignore[arg-type]
    assert (cluster.get("v1", "PersistentVolumeClaim", "claim", "default").get("status") or {}).get("phase") != "Bound"
