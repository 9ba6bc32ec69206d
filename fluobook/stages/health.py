"""Health: the gates of a platform that is in operation, each with its evidence; only reads.

Day-2 work asks them before it touches a node, between nodes and afterwards: what is unhealthy already must not get
worse. What is read is plain data, and the gates are pure functions over it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluobook.clients.talos import MachineStage
from fluobook.context import RunContext
from fluobook.errors import KUBECTL, PHASE, TALOSCTL, FluobookError
from fluobook.machine.access import RENEW_BEFORE
from fluobook.machine.contracts import value_at
from fluobook.params import Node, Platform, Supported, load_supported
from fluobook.params.versions import minor_of
from fluobook.stages.core.check import Check, CheckGroup, all_of, count, error_of, run_groups, title_of
from fluobook.stages.core.cluster import EtcdReport, cluster, read_etcd
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.readiness import WORKLOADS, bad_conditions, certificates_check, listed, why_not
from fluobook.stages.core.stage import read_only_stage
from fluobook.stages.day_two.backups import records, store_of
from fluobook.stages.day_two.drain import cordoned_by_others
from fluobook.stages.day_two.freshness import BACKUP_OF, DATABASES, backup_checks, database_checks, export_checks
from fluobook.stages.etcd_snapshot import age_check
from fluobook.stages.root_application.state import API, KIND, state_of

Obj = Mapping[str, Any]

FAR_BEHIND = 1000
"""Entries of etcd's log that a member may lag behind the leader; one that catches up is far closer."""


@dataclass(frozen=True)
class Operated:
    """How a kind of custom resource shows that what it stands for is healthy.

    Args:
        title: what people call it.
        api_version: of the kind.
        kind: the kind.
        counts: fields whose values must be equal, such as wanted and ready instances.
        conditions: the status that each condition must have, if the object has the condition.
        fields: for a field of the status the values with which it is healthy.
        remedy: what to do.
    """

    title: str
    api_version: str
    kind: str
    counts: tuple[str, str] = ("", "")
    conditions: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remedy: str = ""


OPERATED = (
    Operated(
        "Longhorn volume",
        "longhorn.io/v1beta2",
        "Volume",
        fields={"status.robustness": ("healthy", "unknown")},  # unknown: detached, with nothing to compare
        remedy="degraded: wait until the replicas are rebuilt; faulted: bring back the nodes of its replicas, and "
        "only if these are lost restore it from a backup: "
        f"{KUBECTL} -n longhorn-system get volumes.longhorn.io,replicas.longhorn.io",
    ),
    Operated(
        "PostgreSQL cluster",
        "postgresql.cnpg.io/v1",
        "Cluster",
        counts=("spec.instances", "status.readyInstances"),
        conditions={"Ready": "True", "ContinuousArchiving": "True"},
        remedy=f"{KUBECTL} get clusters.postgresql.cnpg.io -A",
    ),
    Operated(
        "RabbitMQ cluster",
        "rabbitmq.com/v1beta1",
        "RabbitmqCluster",
        conditions={"AllReplicasReady": "True", "ClusterAvailable": "True"},
        remedy=f"{KUBECTL} get rabbitmqclusters -A",
    ),
    Operated(
        "ScyllaDB cluster",
        "scylla.scylladb.com/v1",
        "ScyllaCluster",
        conditions={"Available": "True", "Degraded": "False"},
        counts=("status.members", "status.readyMembers"),
        remedy=f"{KUBECTL} get scyllaclusters -A",
    ),
)
"""What keeps data, and must be whole before a node is taken away from it."""


def unhealthy(operated: Operated, obj: Obj) -> str:
    """Why an object is not healthy; "" if it is."""
    for path, healthy in operated.fields.items():
        value = value_at(obj, path)
        if value not in healthy:
            return f"{path.rpartition('.')[2]} is {value or 'not reported yet'}"
    wanted, ready = (value_at(obj, path) for path in operated.counts)
    if wanted is not None and wanted != ready:
        return f"{ready or 0} of {wanted} ready"
    for condition in value_at(obj, "status.conditions") or ():
        expected = operated.conditions.get(condition["type"])
        if expected and condition["status"] != expected:
            said = condition.get("message") or condition.get("reason")
            return f"{condition['type']} is {condition['status']}" + (f": {said}" if said else "")
    if operated.conditions and not value_at(obj, "status.conditions"):
        return "has no status yet"
    return ""


def operated_check(operated: Operated, objects: Sequence[Obj]) -> Check:
    """Whether all objects of a kind are healthy."""
    problems = [f"{title_of(obj)}: {why}" for obj in objects if (why := unhealthy(operated, obj))]
    name = f"every {operated.title} is healthy"
    if not objects:
        return Check(name, passed=True, result="there is none")
    return all_of(name, len(objects), problems, operated.remedy)


def node_checks(platform: Platform, nodes: Iterable[Obj], *, midway: bool = False) -> Iterable[Check]:
    """Kubernetes' view of the nodes: Ready, without pressure, schedulable, in the versions of the params.

    Args:
        platform: the params.
        nodes: the Nodes of the cluster.
        midway: nodes are worked on, so that one may be cordoned, and versions differ.
    """
    by_name = {node["metadata"]["name"]: node for node in nodes}
    problems = []
    for declared in platform.nodes:
        node = by_name.get(declared.name)
        wrong = (
            ["does not exist"]
            if node is None
            else [f"{condition['type']} is {condition['status']}" for condition in bad_conditions(node)]
        )
        problems += [f"{declared.name}: {', '.join(wrong)}"] * bool(wrong)
    remedy = f"{KUBECTL} describe node; {TALOSCTL} -n ADDRESS dmesg"
    yield all_of("every node is Ready, without pressure", len(platform.nodes), problems, remedy)
    strangers = sorted(set(by_name) - {node.name for node in platform.nodes})
    result = f"not in the params: {', '.join(strangers)}" if strangers else "the nodes are those of the params"
    yield Check(
        "every node of the cluster is in the params",
        not strangers,
        result,
        "add it to the params, or remove it from the cluster",
    )
    if midway:
        return
    cordoned = [name for name, node in by_name.items() if value_at(node, "spec.unschedulable")]
    ours = cordoned_by_others([by_name[name] for name in cordoned], "")
    remedies = [f"{', '.join(ours)}: finish {' and '.join(sorted(set(ours.values())))}"] if ours else []
    remedies += [f"ask who cordoned it, then {KUBECTL} uncordon NODE"] if len(ours) < len(cordoned) else []
    yield Check("no node is cordoned", not cordoned, count(len(by_name), cordoned), "; ".join(remedies))
    wanted = f"v{platform.versions.kubernetes}"
    other = [
        f"{name} has {version}"
        for name, node in by_name.items()
        if (version := value_at(node, "status.nodeInfo.kubeletVersion")) != wanted
    ]
    yield all_of(
        f"every kubelet has version {wanted}",
        len(by_name),
        other,
        "change versions.kubernetes in the params to what runs, or upgrade Kubernetes",
    )


def talos_checks(
    platform: Platform,
    stages: Mapping[str, MachineStage | str],
    versions: Mapping[str, str],
    *,
    midway: bool = False,
) -> Iterable[Check]:
    """Talos' own view of the nodes.

    Args:
        platform: the params.
        stages: by the node's name the stage, or why it was not read.
        versions: by the node's name the running version, such as "v1.13.9".
        midway: as in `node_checks`.
    """
    problems = []
    for name, stage in stages.items():
        if isinstance(stage, str):
            problems.append(f"{name}: {stage}")
        elif stage.stage != "running" or not stage.ready:
            unmet = ", ".join(f"{condition} ({reason})" for condition, reason in stage.unmet)
            problems.append(f"{name}: {stage.stage}, {unmet or 'not ready'}")
    yield all_of(
        "every node runs, and Talos reports it as ready",
        len(stages),
        problems,
        f"{TALOSCTL} -n ADDRESS services; fluobook run {PHASE} --only diagnose",
    )
    if midway:
        return
    wanted = f"v{platform.versions.talos}"
    other = [f"{name} has {version}" for name, version in versions.items() if version != wanted]
    yield all_of(
        f"every node runs Talos {wanted}",
        len(versions),
        other,
        "change versions.talos in the params to what runs, or upgrade Talos",
    )


def etcd_checks(platform: Platform, reports: Mapping[str, EtcdReport]) -> Iterable[Check]:
    """Whether etcd is whole: Talos' upgrade call does not check it, and every restart of a control plane risks it.

    Args:
        platform: the params.
        reports: by the name of the control plane.
    """
    remedy = f"{TALOSCTL} -n ADDRESS etcd status; {TALOSCTL} -n ADDRESS service etcd"
    silent = [f"{name}: {report.error}" for name, report in reports.items() if report.error]
    yield all_of("every member of etcd reports its status", len(reports), silent, remedy)
    answered = {name: report for name, report in reports.items() if report.status}
    if not answered:
        return
    yield _members_check(platform, answered)
    status = {name: report.status for name, report in answered.items() if report.status}
    learners = sorted({m.hostname for report in answered.values() for m in report.members if m.learner})
    yield Check(
        "no member of etcd is a learner",
        not learners,
        count(len(status), learners),
        f"wait until it has caught up, or: {TALOSCTL} -n ADDRESS etcd remove-member ID on another member, "
        f"then {TALOSCTL} -n LEARNER reset --graceful=false --reboot --system-labels-to-wipe EPHEMERAL; it joins again",
    )
    hosts = {s.id: name for name, s in status.items()}
    alarms = sorted({f"{hosts.get(member, member)}: {kind}" for s in status.values() for member, kind in s.alarms})
    alarms += sorted({f"{name}: {error}" for name, s in status.items() for error in s.errors if "alarm:" not in error})
    yield Check(
        "etcd has no alarm and reports no error",
        not alarms,
        "; ".join(alarms) or "none",
        f"NOSPACE: {TALOSCTL} -n ADDRESS etcd defrag for one control plane after the other, then {TALOSCTL} -n "
        "ADDRESS etcd alarm disarm",
    )
    leaders = {(s.leader, s.term) for s in status.values()}
    leader = next(iter(leaders))[0]
    agreed = len(leaders) == 1 and bool(leader)
    seen = "; ".join(f"{name} follows {hosts.get(s.leader, s.leader) or 'nobody'}" for name, s in status.items())
    yield Check("etcd has one leader", agreed, "all members agree" if agreed else seen, remedy)
    newest = max(s.index for s in status.values())
    late = [name for name, s in status.items() if newest - min(s.index, s.applied) > FAR_BEHIND]
    yield Check("no member of etcd is far behind the leader", not late, count(len(status), late), remedy)


def _members_check(platform: Platform, answered: Mapping[str, EtcdReport]) -> Check:
    wanted = sorted(node.name for node in platform.control_planes)
    seen = {name: sorted(m.hostname or f"unnamed {m.id}" for m in report.members) for name, report in answered.items()}
    other = [f"{name} sees {', '.join(members)}" for name, members in seen.items() if members != wanted]
    return all_of(
        "the members of etcd are the control planes, as each of them sees it",
        len(seen),
        other,
        f"{TALOSCTL} -n ADDRESS etcd members; a member without a node is removed with etcd remove-member ID",
    )


def workloads_check(objects: Sequence[Obj]) -> Check:
    """Whether every workload has all its pods."""
    problems = [f"{obj['kind']} {title_of(obj)}: {why}" for obj in objects if (why := why_not(obj))]
    return all_of(
        "every workload is ready",
        len(objects),
        problems,
        f"fluobook run {PHASE} --only diagnose",
    )


def applications_check(applications: Sequence[Obj]) -> Check:
    """Whether Argo CD reports every Application as Synced and Healthy."""
    states = [state_of(application) for application in applications]
    problems = [f"{state.name}: {state.summary()}" for state in states if not state.healthy]
    return all_of(
        "every Application is Synced and Healthy",
        len(states),
        problems,
        f"fluobook run {PHASE} --only root-application",
    )


def days_check(name: str, days: Mapping[str, int | None], remedy: str) -> Check:
    """Whether what expires still lasts long enough.

    Args:
        name: the check.
        days: what expires, with the days that are left; None never expires.
        remedy: what to do.
    """
    soon = [f"{what}: {left} days" for what, left in days.items() if left is not None and left < RENEW_BEFORE.days]
    return all_of(name, len(days), soon, remedy)


def support_check(platform: Platform, supported: Supported, today: dt.date) -> Check:
    """Whether the versions of the params are still supported. Advisory: an upgrade is planned, not rushed."""
    versions = {"Talos": platform.versions.talos, "Kubernetes": platform.versions.kubernetes}
    ends = {
        f"{name} {minor_of(version)}": supported.support.get(name.lower(), {}).get(minor_of(version), "unknown")
        for name, version in versions.items()
    }
    over = [name for name, end in ends.items() if end[:1].isdigit() and dt.date.fromisoformat(end) < today]
    result = "; ".join(f"{name}: {'ended' if name in over else 'until'} {end}" for name, end in ends.items())
    return Check("the versions are supported", not over, result, f"fluobook versions {PHASE}", advisory=True)


# ---- reading -------------------------------------------------------------------------------------------------------


def _etcd(context: RunContext) -> Iterable[Check]:
    planes = context.platform.control_planes
    reports = in_parallel(lambda node: read_etcd(context.talos.client(node)), planes, width=len(planes))
    return etcd_checks(context.platform, dict(zip([node.name for node in planes], reports, strict=True)))


def _talos(context: RunContext, *, midway: bool = False) -> Iterable[Check]:
    stages: dict[str, MachineStage | str] = {}
    versions: dict[str, str] = {}

    def read(node: Node) -> None:
        client = context.talos.client(node)
        try:
            stages[node.name], versions[node.name] = client.machine_stage(), client.version().tag
        except FluobookError as error:
            stages[node.name] = error.message

    nodes = context.platform.nodes
    in_parallel(read, nodes, width=len(nodes))
    declared = {node.name: stages[node.name] for node in nodes}
    return talos_checks(context.platform, declared, versions, midway=midway)


def _workloads(context: RunContext) -> Iterable[Check]:
    kube = context.kube()
    yield workloads_check([obj for kind in WORKLOADS for obj in kube.list("apps/v1", kind)])
    claims = kube.list("v1", "PersistentVolumeClaim")
    problems = [f"{title_of(claim)} {why}" for claim in claims if (why := why_not(claim))]
    yield all_of(
        "every claim is bound",
        len(claims),
        problems,
        f"{KUBECTL} get pvc -A; {KUBECTL} -n longhorn-system get pods",
    )


def _certificates(context: RunContext) -> Iterable[Check]:
    files = context.secrets.access_files(context.platform, context.home)
    problems = [f"{name}: {file.problem}" for name, file in files.items() if file.problem]
    lasting = "; ".join(f"{name} lasts {file.remaining}" for name, file in files.items() if file.remaining)
    yield Check(
        f"kubeconfig and talosconfig are valid for more than {RENEW_BEFORE.days} days",
        not problems,
        "; ".join(problems) or lasting,
        f"fluobook run {PHASE} --only bootstrap-kubernetes",
    )
    kube = context.kube()
    days = {node.name: kube.serving_certificate_days(node.name) for node in context.platform.nodes}
    yield days_check(
        "every kubelet's serving certificate is renewed in time", days, f"fluobook run {PHASE} --only approve-csrs"
    )
    yield certificates_check(kube)


def _tokens(context: RunContext) -> Iterable[Check]:
    """Whether the tokens are accepted; when they expire is only shown to those who may modify users."""
    names = [endpoint.name for endpoint in context.platform.proxmox]
    errors = {name: error_of(context.proxmox(name).permissions) for name in names}
    problems = [f"{name}: {error.message}" for name, error in errors.items() if error]
    yield all_of(
        "every endpoint of Proxmox VE accepts its token",
        len(names),
        problems,
        f"fluobook run {PHASE} --only preflight",
    )


def _backups(context: RunContext) -> Iterable[Check]:
    yield age_check(records(store_of(context)), context.platform, dt.datetime.now(dt.UTC))
    kube, longhorn = context.kube(), "longhorn.io/v1beta2"
    clusters, schedules = (listed(kube, DATABASES, kind) for kind in ("Cluster", "ScheduledBackup"))
    brokers = listed(kube, "rabbitmq.com/v1beta1", "RabbitmqCluster")
    exports = [
        each for each in kube.list("batch/v1", "CronJob") if BACKUP_OF in (value_at(each, "metadata.labels") or {})
    ]
    yield from backup_checks(
        listed(kube, longhorn, "BackupTarget"),
        listed(kube, longhorn, "RecurringJob"),
        {"PostgreSQL": (clusters, schedules), "RabbitMQ": (brokers, exports)},
    )
    now = dt.datetime.now(dt.UTC)
    yield from database_checks(clusters, schedules, listed(kube, "barmancloud.cnpg.io/v1", "ObjectStore"), now)
    yield from export_checks(exports, kube.list("batch/v1", "Job"), now)


def _nodes(context: RunContext, *, midway: bool = False) -> Iterable[Check]:
    return node_checks(context.platform, context.kube().list("v1", "Node"), midway=midway)


def _operated(context: RunContext) -> Iterable[Check]:
    kube = context.kube()
    return [operated_check(each, listed(kube, each.api_version, each.kind)) for each in OPERATED]


WHOLE: tuple[CheckGroup, ...] = (
    CheckGroup("etcd can be read", _etcd),
    CheckGroup("workloads can be read", _workloads),
    CheckGroup("volumes, databases and the broker can be read", _operated),
    CheckGroup("Applications can be read", lambda c: [applications_check(listed(c.kube(), API, KIND))]),
)
"""What has to be whole before a node is taken away, and again after it is back."""
GROUPS: tuple[CheckGroup, ...] = (
    CheckGroup("nodes can be read", _nodes),
    CheckGroup("Talos can be read", _talos),
    *WHOLE,
    CheckGroup("certificates can be read", _certificates),
    CheckGroup("tokens can be read", _tokens),
    CheckGroup("backups can be read", _backups),
    CheckGroup(
        "versions can be read",
        lambda c: [support_check(c.platform, load_supported(c.root), dt.datetime.now(dt.UTC).date())],
    ),
)
"""What is read together; if that fails, the check of the group's name does."""
BETWEEN: tuple[CheckGroup, ...] = (
    CheckGroup("nodes can be read", lambda c: _nodes(c, midway=True)),
    CheckGroup("Talos can be read", lambda c: _talos(c, midway=True)),
    *WHOLE,
)
"""The gates between two nodes."""


def wait_between(context: RunContext, report: Callable[[str], object]) -> None:
    """Wait until all gates pass that allow the next node to be taken away.

    Raises:
        DeadlineExceeded: a gate did not pass in time; the message names it.
    """

    def unmet() -> bool | None:
        failed = [check for check in run_groups(context, BETWEEN) if not check.passed and not check.advisory]
        if failed:
            text = "; ".join(f"{check.name}: {check.result}" for check in failed)
            report(text)
            raise FluobookError(text)
        return True

    context.wait_until("gate", "the gates between two nodes to pass", unmet, interval=1.0)


def verify(context: RunContext) -> Sequence[Check]:
    """All gates.

    Raises:
        StageMissing: there is no cluster yet.
    """
    cluster(context)
    return run_groups(context, GROUPS)


STAGE = read_only_stage(
    20, "health", "Check the health of the platform", verify, uses=("proxmox", "talos", "kubernetes", "bucket")
)
