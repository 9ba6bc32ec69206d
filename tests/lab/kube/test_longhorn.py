"""Longhorn's volumes in the lab: their replicas, and their health as pods and nodes come and go."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab.faults import Faults
from fluobook_lab.kube.controllers.longhorn import API, NAMESPACE, REBUILD_SECONDS, Longhorn
from fluobook_lab.kube.controllers.volumes import Volumes
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.kubelet import NodeInfo

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
    for kind in ("Volume", "Replica", "Node", "BackupTarget", "Backup"):
        store.create(crd(f"{kind.lower()}s", kind))
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


@pytest.mark.parametrize(("locality", "homes"), [("best-effort", {"wk-1"}), ("disabled", {"wk-2"})])
def test_a_copy_lies_near_the_pod_where_the_class_says_so(cluster: Store, locality: str, homes: set[str]) -> None:
    body = {"volumeBindingMode": "WaitForFirstConsumer", "parameters": {"dataLocality": locality}}
    cluster.patch(
        "storage.k8s.io/v1",
        "StorageClass",
        "two",
        body={**body, "parameters": {**body["parameters"], "numberOfReplicas": "1"}},
    )
    longhorn = Longhorn(cluster, Clock())  # type: ignore[arg-type]
    longhorn.reconcile(("", "pvc-1"))
    assert cluster.find(API, "Volume", "pvc-1", NAMESPACE) is None, "nobody knows yet where its pod runs"
    use(cluster)
    longhorn.reconcile(("", "pvc-1"))
    assert {replica["spec"]["nodeID"] for replica in cluster.view(API, "Replica", NAMESPACE)} == homes
    assert health(cluster) == ("attached", "healthy")


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
        for key in longhorn.sources["longhorn.io", "replicas"](replica):
            longhorn.reconcile(key)
        assert health(cluster) == ("attached", robustness)


def test_a_backup_target_is_available_with_a_url_and_the_keys_of_its_secret(cluster: Store) -> None:
    faults = Faults()
    longhorn = Longhorn(cluster, Clock(), faults)  # type: ignore[arg-type]
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
    faults.add("kube.bucket-unreachable")
    assert reported() == (False, "error listing backup volume names: RequestError: send request failed")
    faults.replace(())
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


def homes(store: Store) -> list[str]:
    return sorted(replica["spec"]["nodeID"] for replica in store.list(API, "Replica", NAMESPACE))


def third(store: Store) -> Longhorn:
    """A volume of two replicas, and a third node; Longhorn knows all three."""
    longhorn = Longhorn(store, Clock())  # type: ignore[arg-type]
    longhorn.reconcile(("", "pvc-1"))
    store.set_status(store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "wk-3"}}), READY)
    for name in ("wk-1", "wk-2", "wk-3"):
        longhorn.reconcile(("nodes", name))
    return longhorn


def turn(longhorn: Longhorn, seconds: float = 0) -> float | None:
    """Let time pass, and Longhorn do what it would."""
    longhorn._clock.time += seconds  # type: ignore[attr-defined]
    for name in ("wk-1", "wk-2", "wk-3"):
        longhorn.reconcile(("nodes", name))
    return longhorn.reconcile(("", "pvc-1"))


def evict(store: Store, name: str) -> None:
    body = {"spec": {"allowScheduling": False, "evictionRequested": True}}
    store.patch(API, "Node", name, NAMESPACE, body=body)


def test_an_evicted_replica_is_copied_before_it_is_deleted(cluster: Store) -> None:
    longhorn = third(cluster)
    use(cluster)
    evict(cluster, "wk-2")
    assert turn(longhorn) == REBUILD_SECONDS
    assert (homes(cluster), health(cluster)[1]) == (["wk-1", "wk-2", "wk-3"], "healthy")
    assert turn(longhorn, REBUILD_SECONDS) is None
    assert (homes(cluster), health(cluster)[1]) == (["wk-1", "wk-3"], "healthy")
    longhorn.reconcile(("nodes", "wk-2"))
    assert (
        cluster.get(API, "Node", "wk-2", NAMESPACE)["status"]["diskStatus"]["default-disk-lab"]["scheduledReplica"]
        == {}
    )


@pytest.mark.parametrize("full", [False, True], ids=["as many replicas as nodes", "no space"])
def test_an_eviction_without_a_place_does_not_end(cluster: Store, full: bool) -> None:
    longhorn = third(cluster)
    if full:
        disks = {"default-disk-lab": {"storageReserved": 200 << 30}}
        cluster.patch(API, "Node", "wk-3", NAMESPACE, body={"spec": {"disks": disks}})
    else:
        cluster.delete("v1", "Node", "wk-3")
    evict(cluster, "wk-2")
    assert turn(longhorn, REBUILD_SECONDS) is None
    assert homes(cluster) == ["wk-1", "wk-2"]


def test_a_replica_that_was_deleted_is_made_on_another_node_and_one_on_a_lost_node_is_waited_for(
    cluster: Store,
) -> None:
    longhorn = third(cluster)
    use(cluster)
    cluster.delete("v1", "Node", "wk-2")
    turn(longhorn, 10 * REBUILD_SECONDS)
    assert (homes(cluster), health(cluster)[1]) == (["wk-1", "wk-2"], "degraded")
    lost = next(r for r in cluster.list(API, "Replica", NAMESPACE) if r["spec"]["nodeID"] == "wk-2")
    cluster.delete(API, "Replica", lost["metadata"]["name"], NAMESPACE)
    turn(longhorn)
    assert (homes(cluster), health(cluster)[1]) == (["wk-1", "wk-3"], "degraded")
    turn(longhorn, REBUILD_SECONDS)
    assert health(cluster)[1] == "healthy"


def test_a_node_in_use_cannot_be_deleted_nor_evicted_while_scheduling_is_on(cluster: Store) -> None:
    longhorn = third(cluster)
    with pytest.raises(ApiError, match="need to disable scheduling on node wk-2"):
        cluster.patch(API, "Node", "wk-2", NAMESPACE, body={"spec": {"evictionRequested": True}})
    with pytest.raises(ApiError, match=r"ready condition is True.*schedulable true, and 1 replica, 0 engine"):
        cluster.delete(API, "Node", "wk-2", NAMESPACE)
    evict(cluster, "wk-2")
    turn(longhorn)
    turn(longhorn, REBUILD_SECONDS)
    with pytest.raises(ApiError, match=r"ready condition is True.*schedulable false, and 0 replica"):
        cluster.delete(API, "Node", "wk-2", NAMESPACE)
    cluster.delete("v1", "Node", "wk-2")
    longhorn.reconcile(("nodes", "wk-2"))
    cluster.delete(API, "Node", "wk-2", NAMESPACE)
    longhorn.reconcile(("nodes", "wk-2"))
    assert cluster.find(API, "Node", "wk-2", NAMESPACE) is None


def test_an_empty_disk_in_a_node_has_none_of_the_copies_of_the_old_one(cluster: Store) -> None:
    machines = {name: NodeInfo(name, ("10.10.0.1",), disk=f"first-of-{name}") for name in ("wk-1", "wk-2")}
    longhorn = Longhorn(cluster, Clock(), machines=machines)  # type: ignore[arg-type]
    for name in machines:
        longhorn.reconcile(("nodes", name))
    longhorn.reconcile(("", "pvc-1"))
    use(cluster)
    away(cluster, "wk-2", AWAY)
    machines["wk-2"] = replace(machines["wk-2"], disk="second-of-wk-2")
    away(cluster, "wk-2", READY)

    def turn() -> list[tuple[str, bool]]:
        longhorn._clock.time += REBUILD_SECONDS  # type: ignore[attr-defined]
        for home in cluster.list(API, "Node", NAMESPACE):
            longhorn.reconcile(("nodes", home["metadata"]["name"]))
        longhorn.reconcile(("", "pvc-1"))
        replicas = [replica["spec"] for replica in cluster.list(API, "Replica", NAMESPACE)]
        return sorted((spec["nodeID"], bool(spec.get("failedAt"))) for spec in replicas)

    turn()
    assert (turn(), health(cluster)) == ([("wk-1", False), ("wk-2", True)], ("attached", "degraded"))
    status = cluster.get(API, "Node", "wk-2", NAMESPACE)["status"]["diskStatus"]["default-disk-lab"]
    assert (status["storageMaximum"], status["conditions"][0]["reason"]) == (0, "DiskFilesystemChanged")
    disks = cluster.get(API, "Node", "wk-2", NAMESPACE)["spec"]["disks"]
    closed = {"default-disk-lab": {"allowScheduling": False}}
    removed = {"default-disk-lab": None}
    with pytest.raises(ApiError, match="Please disable the disk default-disk-lab first"):
        cluster.patch(API, "Node", "wk-2", NAMESPACE, body={"spec": {"disks": removed}})
    failed = next(each for each in cluster.list(API, "Replica", NAMESPACE) if each["spec"].get("failedAt"))
    cluster.delete(API, "Replica", failed["metadata"]["name"], NAMESPACE)
    for each in (closed, removed, disks):
        turn()
        cluster.patch(API, "Node", "wk-2", NAMESPACE, body={"spec": {"disks": each}})
    turn()
    turn()
    assert (turn(), health(cluster)[1]) == ([("wk-1", False), ("wk-2", False)], "healthy")


def test_the_only_copy_of_a_volume_is_gone_with_its_disk(cluster: Store) -> None:
    body = {"parameters": {"numberOfReplicas": "1"}}
    cluster.patch("storage.k8s.io/v1", "StorageClass", "two", body=body)
    machines = {name: NodeInfo(name, ("10.10.0.1",), disk="first") for name in ("wk-1", "wk-2")}
    longhorn = Longhorn(cluster, Clock(), machines=machines)  # type: ignore[arg-type]
    longhorn.reconcile(("", "pvc-1"))
    (only,) = homes(cluster)
    use(cluster)
    machines[only] = replace(machines[only], disk="second")
    for _ in range(3):
        longhorn._clock.time += REBUILD_SECONDS  # type: ignore[attr-defined]
        longhorn.reconcile(("", "pvc-1"))
    assert (homes(cluster), health(cluster)) == ([only], ("attached", "faulted"))
