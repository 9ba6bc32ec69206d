"""What the lab's CloudNativePG and its plugin report of backups: the archive of the log, backups, what a store has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.faults import Faults
from fluobook_lab.kube.controllers.backups import API, PLUGIN, Backups, bootstrap_problem

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

KEY = ("default", "pg")
KINDS = {
    API: {"clusters": "Cluster", "scheduledbackups": "ScheduledBackup", "backups": "Backup"},
    "barmancloud.cnpg.io/v1": {"objectstores": "ObjectStore"},
}
CREDENTIALS = {
    "accessKeyId": {"name": "bucket", "key": "AWS_ACCESS_KEY_ID"},
    "secretAccessKey": {"name": "bucket", "key": "AWS_SECRET_ACCESS_KEY"},
}


def create(store: Store, api_version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return store.create({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})


@pytest.fixture
def cluster(store: Store, make_workload: Any) -> Store:
    for api_version, kinds in KINDS.items():
        group, version = api_version.split("/")
        for plural, kind in kinds.items():
            schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            served = {
                "name": version,
                "served": True,
                "storage": True,
                "schema": schema,
                "subresources": {"status": {}},
            }
            names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
            spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
            head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
            store.create({**head, "metadata": {"name": f"{plural}.{group}"}, "spec": spec})
    available = {"conditions": [{"type": "Available", "status": "True"}]}
    store.set_status(store.create(make_workload("Deployment", "plugin-barman-cloud")), available)
    plugin = {"name": PLUGIN, "isWALArchiver": True, "parameters": {"barmanObjectName": "backups"}}
    made = create(store, API, "Cluster", "pg", {"instances": 1, "plugins": [plugin]})
    store.set_status(made, {"readyInstances": 1})
    create(store, "barmancloud.cnpg.io/v1", "ObjectStore", "backups", {"configuration": {"s3Credentials": CREDENTIALS}})
    spec = {"cluster": {"name": "pg"}, "method": "plugin", "pluginConfiguration": {"name": PLUGIN}, "immediate": True}
    create(store, API, "ScheduledBackup", "nightly", {**spec, "schedule": "0 30 1 * * *"})
    return store


def credentials(store: Store) -> None:
    data = {"AWS_ACCESS_KEY_ID": "aWQ=", "AWS_SECRET_ACCESS_KEY": "a2V5"}
    store.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket", "namespace": "default"}, "data": data}
    )


def archiving(store: Store) -> tuple[str, str]:
    conditions = store.get(API, "Cluster", "pg", "default")["status"].get("conditions") or []
    return next((c["status"], c["message"]) for c in conditions if c["type"] == "ContinuousArchiving")


def window(store: Store) -> set[str]:
    status = store.get("barmancloud.cnpg.io/v1", "ObjectStore", "backups", "default").get("status") or {}
    return set(status.get("serverRecoveryWindow", {}).get("pg", {}))


def phases(store: Store) -> list[str]:
    return sorted(backup["status"]["phase"] for backup in store.list(API, "Backup", "default"))


def test_a_schedule_that_wants_it_at_once_gets_one_backup(cluster: Store) -> None:
    credentials(cluster)
    backups = Backups(cluster, Faults())
    for _ in range(3):
        backups.reconcile(KEY)
    assert (phases(cluster), archiving(cluster)[0]) == (["completed"], "True")
    assert window(cluster) == {"firstRecoverabilityPoint", "lastSuccessfulBackupTime"}
    status = cluster.get(API, "ScheduledBackup", "nightly", "default")["status"]
    assert status["lastScheduleTime"] < status["nextScheduleTime"]


def test_without_credentials_nothing_is_archived_and_the_backup_fails(cluster: Store) -> None:
    Backups(cluster, Faults()).reconcile(KEY)
    assert archiving(cluster) == ("False", "missing key AWS_ACCESS_KEY_ID, inside secret bucket")
    assert (phases(cluster), window(cluster)) == (["failed"], {"lastFailedBackupTime"})


def test_a_bucket_that_returns_is_archived_to_again_and_a_new_backup_succeeds(cluster: Store) -> None:
    credentials(cluster)
    faults = Faults(["kube.bucket-unreachable"])
    backups = Backups(cluster, faults)
    backups.reconcile(KEY)
    assert (archiving(cluster)[0], phases(cluster)) == ("False", ["failed"])
    faults.replace([])
    spec = {"cluster": {"name": "pg"}, "method": "plugin", "pluginConfiguration": {"name": PLUGIN}}
    create(cluster, API, "Backup", "by-hand", spec)
    backups.reconcile(KEY)
    assert (archiving(cluster)[0], phases(cluster)) == ("True", ["completed", "failed"])


def test_a_backup_by_another_method_fails_for_lack_of_a_store(cluster: Store) -> None:
    credentials(cluster)
    create(cluster, API, "Backup", "in-tree", {"cluster": {"name": "pg"}})
    Backups(cluster, Faults()).reconcile(KEY)
    assert cluster.get(API, "Backup", "in-tree", "default")["status"]["phase"] == "failed"


def test_a_cluster_without_the_plugin_or_an_instance_reports_no_archive(cluster: Store) -> None:
    credentials(cluster)
    made = create(cluster, API, "Cluster", "plain", {"instances": 1})
    cluster.set_status(made, {"readyInstances": 1})
    Backups(cluster, Faults()).reconcile(("default", "plain"))
    assert "conditions" not in cluster.get(API, "Cluster", "plain", "default")["status"]
    cluster.set_status(cluster.get(API, "Cluster", "pg", "default"), {"readyInstances": 0})
    Backups(cluster, Faults()).reconcile(KEY)
    assert "conditions" not in cluster.get(API, "Cluster", "pg", "default")["status"]
    assert cluster.list(API, "Backup", "default") == []


def test_a_cluster_is_restored_only_from_a_backup_and_never_into_an_archive_that_is_used(cluster: Store) -> None:
    credentials(cluster)
    Backups(cluster, Faults()).reconcile(KEY)

    def problem(server: str, *plugins: dict[str, Any]) -> str:
        plugin = {"name": PLUGIN, "parameters": {"barmanObjectName": "backups", "serverName": server}}
        spec = {"bootstrap": {"recovery": {"source": "old"}}, "externalClusters": [{"name": "old", "plugin": plugin}]}
        made = {"metadata": {"name": "new", "namespace": "default"}, "spec": {**spec, "plugins": list(plugins)}}
        return bootstrap_problem(cluster, made)

    archive = {"name": PLUGIN, "isWALArchiver": True}
    assert problem("pg") == ""
    assert problem("lost") == "no target backup found for old"
    assert problem("pg", {**archive, "parameters": {"barmanObjectName": "backups"}}) == ""
    used = {**archive, "parameters": {"barmanObjectName": "backups", "serverName": "pg"}}
    assert problem("pg", used) == "WAL archive check failed: Expected empty archive"
    old = cluster.get(API, "Cluster", "pg", "default")
    assert bootstrap_problem(cluster, {**old, "status": {"currentPrimary": "pg-1"}}) == ""
