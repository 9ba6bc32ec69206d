"""Backups of PostgreSQL: what CloudNativePG and its plugin for Barman Cloud report, without a bucket or a database."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.controllers.loop import own_key, running
from fluobook_lab.kube.objects import json_path, name_of, namespace_of, timestamp, with_condition

if TYPE_CHECKING:
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API = "postgresql.cnpg.io/v1"
CLUSTERS, SCHEDULES, BACKUPS = ((API.partition("/")[0], name) for name in ("clusters", "scheduledbackups", "backups"))
STORES = ("barmancloud.cnpg.io", "objectstores")
PLUGIN, DEPLOYMENT = "barman-cloud.cloudnative-pg.io", "plugin-barman-cloud"
BUCKET_FAULT = "kube.bucket-unreachable"
DONE = ("completed", "failed")
AGAIN = 30.0
"""Lab seconds between two uploads of the log."""


class Backups:
    """Archives the log of the clusters that have the plugin, and makes the backups that schedules ask for at once.

    What a schedule asks for later is not made: a lab does not live that long. A store is reached with both of its
    credentials, unless the fault "kube.bucket-unreachable" is injected.

    Args:
        store: the cluster.
        faults: what goes wrong on purpose.
    """

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults
        self.sources: Sources = {CLUSTERS: own_key, SCHEDULES: _cluster_of, BACKUPS: _cluster_of}
        self.sources |= {STORES: self._neighbours, ("", "secrets"): self._neighbours}

    def _neighbours(self, obj: Obj) -> list[Key]:
        return [key for key, _ in self._store.storage.scan(CLUSTERS, namespace_of(obj))]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`; the key is a cluster's."""
        cluster = self._store.storage.get(CLUSTERS, key)
        plugin = archiver(cluster) if cluster else None
        if cluster is None or plugin is None or not json_path(cluster, ".status.readyInstances"):
            return None
        if not running(self._store, DEPLOYMENT):
            return AGAIN
        parameters = plugin.get("parameters") or {}
        store = self._store.storage.get(STORES, (key[0], parameters.get("barmanObjectName", "")))
        problem = self._problem(store)
        self._archive(cluster, problem)
        for schedule in self._of(SCHEDULES, key):
            self._schedule(schedule)
        for backup in self._of(BACKUPS, key):
            if json_path(backup, ".status.phase") not in DONE:
                self._back_up(backup, store, parameters.get("serverName") or key[1], problem)
        return AGAIN

    def _of(self, resource: Key, cluster: Key) -> list[Obj]:
        """The objects of a kind that are of a cluster."""
        objects = (obj for _, obj in self._store.storage.scan(resource, cluster[0]))
        return [obj for obj in objects if json_path(obj, ".spec.cluster.name") == cluster[1]]

    def _problem(self, store: Obj | None) -> str:
        """Why nothing can be uploaded to a store; "" if it can."""
        if store is None:
            return "objectstores.barmancloud.cnpg.io not found"
        for field in ("accessKeyId", "secretAccessKey"):
            wanted = json_path(store, f".spec.configuration.s3Credentials.{field}") or {}
            secret = self._store.find("v1", "Secret", wanted.get("name", ""), namespace_of(store)) or {}
            if wanted.get("key") not in (secret.get("data") or {}):
                return f"missing key {wanted.get('key')}, inside secret {wanted.get('name')}"
        down = self._faults.on(BUCKET_FAULT)
        return "unexpected failure invoking barman-cloud-wal-archive: exit status 2" if down else ""

    def _archive(self, cluster: Obj, problem: str) -> None:
        status = cluster.get("status") or {}
        reason = "ContinuousArchivingFailing" if problem else "ContinuousArchivingSuccess"
        conditions = with_condition(
            status.get("conditions") or [],
            "ContinuousArchiving",
            str(not problem),
            reason,
            problem or "Continuous archiving is working",
        )
        self._store.set_status(cluster, {**status, "conditions": conditions})

    def _schedule(self, schedule: Obj) -> None:
        """Make the first backup of a schedule that wants it at once."""
        spec, status = schedule["spec"], schedule.get("status") or {}
        if spec.get("suspend") or status.get("lastCheckTime"):
            return
        now = dt.datetime.now(dt.UTC)
        status = {"lastCheckTime": timestamp(now)}
        if spec.get("immediate"):
            name = f"{name_of(schedule)}-{now:%Y%m%d%H%M%S}"
            labels = {"cnpg.io/cluster": spec["cluster"]["name"], "cnpg.io/scheduled-backup": name_of(schedule)}
            metadata = {"name": name, "namespace": namespace_of(schedule), "labels": labels}
            own = {name: spec[name] for name in ("cluster", "method", "pluginConfiguration") if name in spec}
            self._store.create({"apiVersion": API, "kind": "Backup", "metadata": metadata, "spec": own})
            tomorrow = timestamp(now + dt.timedelta(days=1))
            status |= {"lastScheduleTime": timestamp(now), "nextScheduleTime": tomorrow}
        self._store.set_status(schedule, status)

    def _back_up(self, backup: Obj, store: Obj | None, server: str, problem: str) -> None:
        named = json_path(backup, ".spec.pluginConfiguration.name")
        if backup["spec"].get("method") != "plugin" or named != PLUGIN:
            problem = "no barmanObjectStore section defined on the target cluster"
        now = timestamp()
        status: dict[str, Any] = {
            "phase": DONE[bool(problem)],
            "method": backup["spec"].get("method"),
            "startedAt": now,
        }
        status |= {"error": problem} if problem else {"stoppedAt": now, "backupName": name_of(backup)}
        self._store.set_status(backup, status)
        if store is not None:
            windows = dict(json_path(store, ".status.serverRecoveryWindow") or {})
            window = dict(windows.get(server) or {})
            window |= {"lastFailedBackupTime": now} if problem else {"lastSuccessfulBackupTime": now}
            if not problem:
                window.setdefault("firstRecoverabilityPoint", now)
            status = {**(store.get("status") or {}), "serverRecoveryWindow": {**windows, server: window}}
            self._store.set_status(store, status)


def bootstrap_problem(store: Store, cluster: Obj) -> str:
    """Why a new cluster does not get its first instance: nothing to restore, or an archive that is not its own."""
    spec, namespace = cluster["spec"], namespace_of(cluster)
    if json_path(cluster, ".status.currentPrimary"):
        return ""
    if source := json_path(cluster, ".spec.bootstrap.recovery.source"):
        named = [each.get("plugin") or {} for each in spec.get("externalClusters") or [] if each.get("name") == source]
        if not any(_has_backup(store, namespace, plugin, source) for plugin in named):
            return f"no target backup found for {source}"
    plugin = archiver(cluster)
    if plugin and _has_backup(store, namespace, plugin, name_of(cluster)):
        return "WAL archive check failed: Expected empty archive"
    return ""


def _has_backup(store: Store, namespace: str, plugin: Obj, name: str) -> bool:
    """Whether the store that a plugin names has a backup under its server's name, by default the cluster's."""
    parameters = plugin.get("parameters") or {}
    store_object = store.storage.get(STORES, (namespace, parameters.get("barmanObjectName", ""))) or {}
    windows = json_path(store_object, ".status.serverRecoveryWindow") or {}
    window = windows.get(parameters.get("serverName") or name) or {}
    return plugin.get("name") == PLUGIN and "lastSuccessfulBackupTime" in window


def archiver(cluster: Obj) -> Obj | None:
    """The plugin that archives the log of a cluster, if it is the one for Barman Cloud."""
    plugins = cluster["spec"].get("plugins") or []
    return next((each for each in plugins if each.get("isWALArchiver") and each.get("name") == PLUGIN), None)


def _cluster_of(obj: Obj) -> list[Key]:
    return [(namespace_of(obj), json_path(obj, ".spec.cluster.name") or "")]
