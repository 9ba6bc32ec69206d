"""Whether data is backed up, and can be restored, by what the operators and their plugins report; pure functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fluobook.errors import KUBECTL
from fluobook.machine.contracts import value_at
from fluobook.stages.core.check import Check, all_of, title_of

Obj = Mapping[str, Any]

DATABASES = "postgresql.cnpg.io/v1"
BACKUP_OF = "fluobook/backup-of"
"""The label of a CronJob that exports what no operator backs up."""
LATE = dt.timedelta(hours=6)
"""How long after its time a backup may still be on its way."""


def backup_checks(
    targets: Sequence[Obj], jobs: Sequence[Obj], others: Mapping[str, tuple[Sequence[Obj], Sequence[Obj]]]
) -> Iterable[Check]:
    """Whether data is backed up, and where to. Its absence is said, and stops nothing; a target that is away does.

    Args:
        targets: the backup targets of Longhorn; one without a URL is none.
        jobs: the recurring jobs of Longhorn; one without groups is for no volume.
        others: by its name what else holds data, and the schedules for it.
    """
    named = [target for target in targets if value_at(target, "spec.backupTargetURL")]
    tasks = [
        job for job in jobs if str(value_at(job, "spec.task")).startswith("backup") and value_at(job, "spec.groups")
    ]
    volumes = tasks if named else []
    missing = ["Longhorn volumes"] * (not volumes)
    missing += [name for name, (holders, schedules) in others.items() if holders and not schedules]
    total = len(volumes) + sum(len(schedules) for _, schedules in others.values())
    result = f"no schedule for {', '.join(missing)}" if missing else f"{total} schedules"
    remedy = "set backups.bucket in the params: docs/how-to/back-up-data.md"
    yield Check("data is backed up", not missing, result, remedy, advisory=True)
    if named:
        away = [
            f"{title_of(target)}: {_unavailable(target)}"
            for target in named
            if not value_at(target, "status.available")
        ]
        remedy = f"{KUBECTL} -n longhorn-system describe backuptargets; the Secret longhorn-backup opens the bucket"
        yield all_of("every backup target is available", len(named), away, remedy)


def _unavailable(target: Obj) -> str:
    conditions = value_at(target, "status.conditions") or ()
    said = next((c.get("message") for c in conditions if c["type"] == "Unavailable" and c["status"] == "True"), "")
    return said or "not available"


def database_checks(
    clusters: Sequence[Obj], schedules: Sequence[Obj], stores: Sequence[Obj], now: dt.datetime
) -> Iterable[Check]:
    """Whether each PostgreSQL cluster that a schedule is for can be restored, by what its plugin reports.

    Args:
        clusters: the clusters of CloudNativePG.
        schedules: its scheduled backups.
        stores: the object stores of its plugin for Barman Cloud.
        now: the time.
    """
    windows = {
        (store["metadata"]["namespace"], store["metadata"]["name"], server): window
        for store in stores
        for server, window in (value_at(store, "status.serverRecoveryWindow") or {}).items()
    }
    by_key = {_key(cluster): cluster for cluster in clusters}
    problems = []
    for schedule in schedules:
        namespace, name = schedule["metadata"]["namespace"], value_at(schedule, "spec.cluster.name")
        cluster = by_key.get((namespace, name))
        plugins = (value_at(cluster, "spec.plugins") or ()) if cluster else ()
        own = [value_at(plugin, "parameters") or {} for plugin in plugins if plugin.get("isWALArchiver")]
        store, server = (own[0].get("barmanObjectName"), own[0].get("serverName", name)) if own else (None, name)
        if why := unrestorable(cluster, schedule, windows.get((namespace, store, server)), now):
            problems.append(f"{title_of(schedule)}: {why}")
    remedy = f"{KUBECTL} describe objectstores,backups.postgresql.cnpg.io -A"
    if schedules:
        yield all_of("every PostgreSQL cluster with a schedule can be restored", len(schedules), problems, remedy)


def export_checks(exports: Sequence[Obj], jobs: Sequence[Obj], now: dt.datetime) -> Iterable[Check]:
    """Whether what is exported on a schedule was exported.

    Args:
        exports: the CronJobs with the label `BACKUP_OF`.
        jobs: the Jobs of the cluster.
        now: the time.
    """
    problems = []
    for export in exports:
        own = [job for job in jobs if _owner(job) == export["metadata"].get("uid")]
        if why := unexported(export, own, now):
            problems.append(f"{title_of(export)}: {why}")
    if exports:
        remedy = (
            f"{KUBECTL} -n NAMESPACE logs job/JOB; to repeat it: {KUBECTL} -n NAMESPACE create job "
            "--from=cronjob/NAME NAME-by-hand"
        )
        yield all_of("every export has succeeded", len(exports), problems, remedy)


def unexported(export: Obj, jobs: Sequence[Obj], now: dt.datetime) -> str:
    """Why an export is not there; "" if it is, or if its first time has not come yet.

    Args:
        export: the CronJob.
        jobs: its Jobs.
        now: the time.
    """
    if value_at(export, "spec.suspend"):
        return "is suspended"
    done, due = (_time(value_at(export, f"status.{name}")) for name in ("lastSuccessfulTime", "lastScheduleTime"))
    failures = [
        time
        for job in jobs
        for condition in value_at(job, "status.conditions") or ()
        if condition["type"] == "Failed" and condition["status"] == "True"
        if (time := _time(condition.get("lastTransitionTime")))
    ]
    if failures and (done is None or max(failures) > done):
        return f"failed at {max(failures):%Y-%m-%d %H:%M}"
    if due and (done is None or done < due) and due < now - LATE:
        return f"the export of {due:%Y-%m-%d %H:%M} was not made"
    is_daily = str(value_at(export, "spec.schedule")).split()[2:] == ["*"] * 3
    since = done or _time(value_at(export, "metadata.creationTimestamp"))
    if is_daily and since and since < now - dt.timedelta(days=1) - LATE:
        return f"there is no export since {since:%Y-%m-%d %H:%M}"
    return ""


def _owner(obj: Obj) -> Any:
    return next((owner.get("uid") for owner in value_at(obj, "metadata.ownerReferences") or ()), None)


def _time(text: Any) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if text else None


def unrestorable(cluster: Obj | None, schedule: Obj, window: Obj | None, now: dt.datetime) -> str:
    """Why a cluster cannot be restored to the time of its last scheduled backup, or its log not to now; "" if it can.

    Args:
        cluster: the cluster, if it exists.
        schedule: its scheduled backup.
        window: what the store has of it.
        now: the time.
    """
    if cluster is None:
        return f"Cluster {value_at(schedule, 'spec.cluster.name')} does not exist"
    if value_at(schedule, "spec.suspend"):
        return "is suspended"
    conditions = {c["type"]: c for c in value_at(cluster, "status.conditions") or ()}
    archiving = conditions.get("ContinuousArchiving", {"status": "not reported"})
    if archiving["status"] != "True":
        return f"its write-ahead log is not archived: {archiving.get('message') or archiving['status']}"
    times = {name: dt.datetime.fromisoformat(value) for name, value in (window or {}).items()}
    done, failed = times.get("lastSuccessfulBackupTime"), times.get("lastFailedBackupTime")
    if failed and (done is None or failed > done):
        return f"the backup of {failed:%Y-%m-%d %H:%M} failed"
    if done is None:
        return "there is no backup yet"
    due = [value_at(schedule, f"status.{name}") for name in ("lastScheduleTime", "nextScheduleTime")]
    missed = [time for text in due if text for time in [dt.datetime.fromisoformat(text)] if done < time < now - LATE]
    return f"the backup of {missed[0]:%Y-%m-%d %H:%M} was not made" if missed else ""


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
