"""Runbook 24, etcd-snapshot: takes a snapshot of etcd, proves that it can be restored, and keeps a number of them.

A ConfigMap with the snapshot's name is written first, so each snapshot holds the proof of which one it is. What was
read from the node is checked (checksum, cluster, revision, that name), encrypted with age, and recorded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fluobook.clients.talos import EtcdStatus
from fluobook.context import RunContext
from fluobook.errors import PHASE, FluobookError, Refused, TaskFailed
from fluobook.files import temporary_folder
from fluobook.kubernetes import snapshot as etcd
from fluobook.kubernetes.snapshot import SENTINEL, DamagedError
from fluobook.params import Node, Platform
from fluobook.stages.core.check import Check, CheckGroup, run_groups
from fluobook.stages.core.cluster import Missing, api, read_etcd
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage
from fluobook.stages.day_two import backups
from fluobook.stages.day_two.backups import Record

NAME = "etcd-snapshot"


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        now: in UTC.
        snapshots: those that there are, the newest first.
        missing: what an earlier stage has not done.
        problem: why no snapshot can be taken; "" if one can.
    """

    now: dt.datetime
    snapshots: Sequence[Record] = ()
    missing: Missing | None = None
    problem: str = ""

    def due(self, platform: Platform) -> bool:
        """Whether it is time for another snapshot."""
        last = backups.newest(self.snapshots, platform)
        return last is None or last.age(self.now) * 2 >= dt.timedelta(hours=platform.etcd_snapshots.max_age_hours)


def observe(context: RunContext) -> Observation:
    """Read the records; ask etcd only if a snapshot is due."""
    now, kube = dt.datetime.now(dt.UTC), api(context)
    if isinstance(kube, Missing):
        return Observation(now, missing=kube)
    observation = Observation(now, backups.records(backups.store_of(context)))
    if not observation.due(context.platform):
        return observation
    try:
        _member(context)
    except FluobookError as error:
        return Observation(now, observation.snapshots, problem=error.message)
    return observation


def _member(context: RunContext) -> tuple[Node, EtcdStatus]:
    """The control plane whose member is asked: one that follows, because reading the whole database is work.

    Raises:
        Refused: no member is part of a quorum.
    """
    problems = []
    candidates: list[tuple[bool, Node, EtcdStatus]] = []
    for node in context.platform.control_planes:
        report = read_etcd(context.talos.client(node))
        if report.status is None:
            problems.append(f"{node.name}: {report.error}")
        elif report.status.learner or report.status.errors:
            problems.append(f"{node.name}: {'; '.join(report.status.errors) or 'is a learner'}")
        else:
            candidates.append((report.status.leader == report.status.id, node, report.status))
    if not candidates:
        raise Refused(f"no member of etcd can give a snapshot: {'; '.join(problems)}")
    _, node, status = min(candidates, key=lambda candidate: candidate[0])
    return node, status


def plan(platform: Platform, observation: Observation) -> Plan:
    """A snapshot if one is due, then the removal of those that are no longer kept.

    Raises:
        Refused: etcd cannot give one.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), waits_for=observation.missing.stage)
    due = observation.due(platform)
    if observation.problem and due:
        raise Refused(
            observation.problem,
            cause="a snapshot needs a member of etcd that is part of a quorum and has no alarm",
            remedy=f"fluobook run {PHASE} health; if the quorum is lost for good: fluobook run {PHASE} restore",
        )
    actions = []
    if due:
        last = backups.newest(observation.snapshots, platform)
        reason = f"the newest is {_hours(last, observation.now)} old" if last else "there is none"
        bucket = platform.etcd_snapshots.bucket
        detail = "checked, encrypted" + (f", to the bucket {bucket.name}" if bucket else "")
        data = {"bucket": bucket.name} if bucket else {}
        actions.append(Action("take a snapshot", "write", "snapshot of etcd", detail, reason, data=data))
    limits = platform.etcd_snapshots
    for record in backups.expired(observation.snapshots, platform, observation.now, more=int(due)):
        reason = f"more than {limits.keep} are newer, and it is older than {limits.keep_days} days"
        needs = ("take a snapshot",) if due else ()
        title = f"snapshot {record.name}"
        actions.append(
            Action(f"delete {record.name}", "delete", title, record.taken, reason, needs, data={"name": record.name})
        )
    return Plan(NAME, tuple(actions), len(observation.snapshots), platform.digest_data())


def _hours(record: Record, now: dt.datetime) -> str:
    return f"{record.age(now).total_seconds() / 3600:.1f} hours"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Take a snapshot, or delete one."""
    if action.verb == "delete":
        backups.delete(context, action.data["name"])
        return None
    backups.prepared(context)
    now = dt.datetime.now(dt.UTC)
    name = f"{context.platform.cluster.name}-{now:%Y%m%d-%H%M%S}"
    context.kube().apply(sentinel(name=name), force=True, manager=f"fluobook-{NAME}")
    node, status = _member(context)
    report(f"reads the database of {node.name}")
    with temporary_folder(NAME) as folder:
        client = context.talos.client(node, "os:etcd:backup")
        path = client.etcd_snapshot(folder / name, timeout=context.platform.deadlines.upgrade).path
        data = path.read_bytes()
    try:
        content = etcd.read(data)
    except DamagedError as error:
        raise _useless(f"it is damaged: {error}", node) from error
    versions, bundle = context.platform.versions, context.secrets.bundle()
    record = Record(
        name,
        context.platform.cluster.name,
        bundle.cluster_id,
        now.isoformat(timespec="seconds"),
        node.name,
        content.revision,
        status.index,
        content.sha256,
        content.size,
        "",
        context.talos.client(node).version().tag,
        str(versions.kubernetes),
        status.version,
        backups.recipients_of(context),
    )
    if problem := backups.refusal(content, record, bundle.kubernetes.crt):
        raise _useless(problem, node)
    report("encrypts it")
    return asdict(backups.write(context, data, record))


def _useless(problem: str, node: Node) -> TaskFailed:
    return TaskFailed(
        f"the snapshot of {node.name}: {problem}",
        system="talos",
        cause="it was damaged on its way, or etcd's database is",
        remedy="run it again; if it fails again, check etcd's alarms with `health`. Nothing was kept of it",
        facts={"address": node.address},
    )


def sentinel(**data: str) -> dict[str, Any]:
    """The ConfigMap that names the snapshot which is taken, and the one that was restored."""
    metadata = {"name": SENTINEL, "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def age_check(entries: Sequence[Record], platform: Platform, now: dt.datetime) -> Check:
    """Whether the newest snapshot is young enough; advisory as long as there is none."""
    last, limit = backups.newest(entries, platform), platform.etcd_snapshots.max_age_hours
    young = last is not None and last.age(now) <= dt.timedelta(hours=limit)
    return Check(
        f"etcd has a snapshot that is at most {limit} hours old",
        young,
        f"{last.name}: {_hours(last, now)}" if last else "there is none here",
        f"fluobook run {PHASE} {NAME}",
        advisory=last is None,
    )


def _restorable(context: RunContext) -> Check:
    """Read the newest snapshot as a restore would."""
    opened = backups.read(context, None)
    record = opened.record
    result = f"{record.name}: revision {record.revision}, {record.size >> 10} KiB, {record.sha256}" if record else ""
    return Check("the newest snapshot decrypts, is intact, and is this cluster's", passed=True, result=result)


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check the age of the newest snapshot, that it can be restored, and that no more are kept than wanted."""
    platform, snapshots = context.platform, observation.snapshots
    left = [record.name for record in backups.expired(snapshots, platform, observation.now)]
    return [
        age_check(snapshots, platform, observation.now),
        *run_groups(
            context,
            [CheckGroup("the newest snapshot decrypts, is intact, and is this cluster's", lambda c: [_restorable(c)])],
        ),
        Check("expired snapshots are deleted", not left, ", ".join(left) or f"{len(snapshots)} are kept"),
    ]


STAGE = Stage(
    24,
    NAME,
    "Take a snapshot of etcd",
    observe,
    plan,
    perform,
    verify,
    uses=("talos", "kubernetes", "bucket"),
    widths={"": 1},
)
