"""Health: each gate as a table of observations, and all of them on a platform in the lab."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.clients.talos import EtcdMember, EtcdStatus, MachineStage
from fluobook.errors import CheckFailed, StageMissing
from fluobook.stages import health
from fluobook.stages.day_two import freshness
from fluobook.stages.health import OPERATED, EtcdReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fluobook.params import Platform
    from fluobook.stages.core.check import Check

PLANES = ("talos-cp-1", "talos-cp-2", "talos-cp-3")


@pytest.fixture(scope="module")
def phase3(root: Path) -> Platform:
    return params.load("phase3", root=root).platform


def failed(checks: Iterable[Check]) -> dict[str, str]:
    return {check.name: check.result for check in checks if not check.passed}


def members(*names: str, learner: str = "") -> tuple[EtcdMember, ...]:
    return tuple(
        EtcdMember(f"{PLANES.index(n) + 1:016x}", n, (), (), learner=n == learner) for n in names if n in PLANES
    )


def status(number: int, **changes: Any) -> EtcdStatus:
    whole = EtcdStatus(
        f"{number:016x}",
        f"{1:016x}",
        7,
        9000,
        9000,
        learner=False,
        errors=(),
        alarms=(),
        size=20,
        used=8,
        version="3.6.5",
    )
    return replace(whole, **changes)


def whole() -> dict[str, EtcdReport]:
    return {name: EtcdReport(members(*PLANES), status(number)) for number, name in enumerate(PLANES, 1)}


SILENT = "every member of etcd reports its status"
MEMBERS = "the members of etcd are the control planes, as each of them sees it"
LEADER = "etcd has one leader"
ALARM = "etcd has no alarm and reports no error"
ETCD: dict[str, tuple[dict[str, EtcdReport], dict[str, str]]] = {
    "whole": ({}, {}),
    "one is silent": (
        {"talos-cp-3": EtcdReport(error="no answer")},
        {SILENT: "2 of 3; talos-cp-3: no answer"},
    ),
    "one sees a member less": (
        {"talos-cp-2": EtcdReport(members("talos-cp-1", "talos-cp-2"), status(2))},
        {MEMBERS: "2 of 3; talos-cp-2 sees talos-cp-1, talos-cp-2"},
    ),
    "a member has not started": (
        {
            "talos-cp-1": EtcdReport(
                (*members("talos-cp-1", "talos-cp-2"), EtcdMember("9", "", (), (), learner=False)), status(1)
            )
        },
        {MEMBERS: "2 of 3; talos-cp-1 sees talos-cp-1, talos-cp-2, unnamed 9"},
    ),
    "a learner": (
        {"talos-cp-1": EtcdReport(members(*PLANES, learner="talos-cp-3"), status(1))},
        {"no member of etcd is a learner": "2 of 3; not: talos-cp-3"},
    ),
    "an alarm": (
        {"talos-cp-1": EtcdReport(members(*PLANES), status(1, alarms=((f"{2:016x}", "NOSPACE"),)))},
        {ALARM: "talos-cp-2: NOSPACE"},
    ),
    "an error": (
        {"talos-cp-2": EtcdReport(members(*PLANES), status(2, errors=("etcdserver: no leader",)))},
        {ALARM: "talos-cp-2: etcdserver: no leader"},
    ),
    "two leaders": (
        {"talos-cp-3": EtcdReport(members(*PLANES), status(3, leader=f"{3:016x}"))},
        {LEADER: "talos-cp-1 follows talos-cp-1; talos-cp-2 follows talos-cp-1; talos-cp-3 follows talos-cp-3"},
    ),
    "one knows no leader": (
        {"talos-cp-3": EtcdReport(members(*PLANES), status(3, leader=""))},
        {LEADER: "talos-cp-1 follows talos-cp-1; talos-cp-2 follows talos-cp-1; talos-cp-3 follows nobody"},
    ),
    "an election in between": (
        {"talos-cp-2": EtcdReport(members(*PLANES), status(2, term=8))},
        {LEADER: "talos-cp-1 follows talos-cp-1; talos-cp-2 follows talos-cp-1; talos-cp-3 follows talos-cp-1"},
    ),
    "a member applies too slowly": (
        {"talos-cp-2": EtcdReport(members(*PLANES), status(2, applied=7000))},
        {"no member of etcd is far behind the leader": "2 of 3; not: talos-cp-2"},
    ),
    "a member is a little behind": ({"talos-cp-2": EtcdReport(members(*PLANES), status(2, index=8990))}, {}),
}


@pytest.mark.parametrize("name", ETCD)
def test_etcd_is_whole_only_if_all_members_agree(name: str, phase3: Platform) -> None:
    changes, expected = ETCD[name]
    assert failed(health.etcd_checks(phase3, whole() | changes)) == expected


def test_without_any_answer_only_the_silence_is_reported(phase3: Platform) -> None:
    reports = {name: EtcdReport(error="no answer") for name in PLANES}
    assert list(failed(health.etcd_checks(phase3, reports))) == [SILENT]


VERSION = f"v{params.pins(params.repository_root())['kubernetes']}"


def node(name: str, *, version: str = VERSION, cordoned: bool = False, **conditions: str) -> dict[str, Any]:
    found = {"Ready": "True", "DiskPressure": "False", **conditions}
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "conditions": [{"type": kind, "status": value} for kind, value in found.items()],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


READY = "every node is Ready, without pressure"
NODES: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], dict[str, str]]] = {
    "all well": (lambda nodes: nodes, {}),
    "one is gone": (lambda nodes: nodes[1:], {READY: "5 of 6; talos-cp-1: does not exist"}),
    "not ready": (
        lambda nodes: [node("talos-cp-1", Ready="Unknown"), *nodes[1:]],
        {READY: "5 of 6; talos-cp-1: Ready is Unknown"},
    ),
    "pressure": (
        lambda nodes: [node("talos-cp-1", DiskPressure="True"), *nodes[1:]],
        {READY: "5 of 6; talos-cp-1: DiskPressure is True"},
    ),
    "cordoned": (
        lambda nodes: [node("talos-cp-1", cordoned=True), *nodes[1:]],
        {"no node is cordoned": "5 of 6; not: talos-cp-1"},
    ),
    "another version": (
        lambda nodes: [node("talos-cp-1", version="v1.34.1"), *nodes[1:]],
        {f"every kubelet has version {VERSION}": "5 of 6; talos-cp-1 has v1.34.1"},
    ),
    "a stranger": (
        lambda nodes: [*nodes, node("intruder")],
        {"every node of the cluster is in the params": "not in the params: intruder"},
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_are_those_of_the_params_and_well(name: str, phase3: Platform) -> None:
    change, expected = NODES[name]
    nodes = change([node(declared.name) for declared in phase3.nodes])
    assert failed(health.node_checks(phase3, nodes)) == expected


def test_talos_reports_each_node_as_ready_in_the_version_of_the_params(phase3: Platform) -> None:
    version = f"v{phase3.versions.talos}"
    stages: dict[str, MachineStage | str] = {
        n.name: MachineStage("running", ready=True, unmet=()) for n in phase3.nodes
    }
    versions = {n.name: version for n in phase3.nodes}
    assert failed(health.talos_checks(phase3, stages, versions)) == {}
    stages |= {
        "talos-cp-1": "no answer",
        "talos-cp-2": MachineStage("booting", ready=False, unmet=(("etcd", "not up"),)),
    }
    versions |= {"talos-cp-3": "v1.12.0"}
    assert failed(health.talos_checks(phase3, stages, versions)) == {
        "every node runs, and Talos reports it as ready": (
            "4 of 6; talos-cp-1: no answer; talos-cp-2: booting, etcd (not up)"
        ),
        f"every node runs Talos {version}": "5 of 6; talos-cp-3 has v1.12.0",
    }


def conditions(**values: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": value} for kind, value in values.items()]}


WORKLOADS: list[tuple[str, dict[str, Any], str]] = [
    ("Volume", {"status": {"robustness": "healthy"}}, ""),
    ("Volume", {"status": {"robustness": "unknown", "state": "detached"}}, ""),
    ("Volume", {"status": {"robustness": "degraded"}}, "robustness is degraded"),
    ("Volume", {"status": {"robustness": "faulted"}}, "robustness is faulted"),
    ("Volume", {}, "robustness is not reported yet"),
    ("Cluster", {"spec": {"instances": 3}, "status": {"readyInstances": 3, **conditions(Ready="True")}}, ""),
    (
        "Cluster",
        {"spec": {"instances": 3}, "status": {"readyInstances": 2, **conditions(Ready="True")}},
        "2 of 3 ready",
    ),
    ("Cluster", {"spec": {"instances": 3}, "status": {}}, "0 of 3 ready"),
    (
        "Cluster",
        {
            "spec": {"instances": 1},
            "status": {"readyInstances": 1, **conditions(Ready="True", ContinuousArchiving="False")},
        },
        "ContinuousArchiving is False",
    ),
    ("RabbitmqCluster", {"status": conditions(AllReplicasReady="True", ClusterAvailable="True")}, ""),
    ("RabbitmqCluster", {"status": conditions(AllReplicasReady="False")}, "AllReplicasReady is False"),
    ("RabbitmqCluster", {}, "has no status yet"),
    ("ScyllaCluster", {"status": {"members": 3, "readyMembers": 3, **conditions(Available="True")}}, ""),
    ("ScyllaCluster", {"status": {"members": 3, "readyMembers": 2, **conditions(Available="True")}}, "2 of 3 ready"),
    (
        "ScyllaCluster",
        {"status": {"members": 1, "readyMembers": 1, **conditions(Available="True", Degraded="True")}},
        "Degraded is True",
    ),
]


@pytest.mark.parametrize(("kind", "obj", "why"), WORKLOADS)
def test_what_keeps_data_is_whole(kind: str, obj: dict[str, Any], why: str) -> None:
    operated = next(each for each in OPERATED if each.kind == kind)
    assert health.unhealthy(operated, obj) == why
    check = health.operated_check(operated, [{"metadata": {"namespace": "data", "name": "a"}, **obj}])
    assert (check.passed, check.result) == (not why, f"0 of 1; data/a: {why}" if why else "1 of 1")


def test_a_component_that_is_left_out_fails_no_gate() -> None:
    assert [health.operated_check(each, []).result for each in OPERATED] == ["there is none"] * len(OPERATED)


def test_many_unhealthy_objects_are_counted() -> None:
    objects = [{"metadata": {"name": f"v{n}"}, "status": {"robustness": "degraded"}} for n in range(9)]
    assert health.operated_check(OPERATED[0], objects).result.endswith("v4: robustness is degraded; +4 more")


TARGET = {"metadata": {"name": "default"}, "spec": {"backupTargetURL": "s3://a@b/"}, "status": {"available": True}}
NO_TARGET = {"metadata": {"name": "default"}, "spec": {"backupTargetURL": ""}}
AWAY = {"type": "Unavailable", "status": "True", "message": "403"}
UNAVAILABLE = {**TARGET, "status": {"available": False, "conditions": [AWAY]}}
JOB = {"spec": {"task": "backup", "groups": ["default"]}}
NOTHING: tuple[list[Any], list[Any]] = ([{}], [])
WHOLE: tuple[list[Any], list[Any]] = ([{}], [{}])
BACKUPS: dict[str, tuple[tuple[list[Any], list[Any], dict[str, Any]], list[str]]] = {
    "nothing": (
        ([NO_TARGET], [{"spec": {"task": "backup", "groups": []}}], {"PostgreSQL": NOTHING, "RabbitMQ": NOTHING}),
        ["no schedule for Longhorn volumes, PostgreSQL, RabbitMQ"],
    ),
    "no bucket": (([NO_TARGET], [JOB], {"PostgreSQL": WHOLE}), ["for Longhorn volumes"]),
    "trim is none": (
        ([TARGET], [{"spec": {"task": "filesystem-trim", "groups": ["default"]}}], {"PostgreSQL": WHOLE}),
        ["volumes", "1 of 1"],
    ),
    "volumes": (([TARGET], [JOB], {"PostgreSQL": NOTHING, "RabbitMQ": WHOLE}), ["for PostgreSQL", "1 of 1"]),
    "left out": (([TARGET], [JOB], {"PostgreSQL": ([], []), "RabbitMQ": WHOLE}), ["2 schedules", "1 of 1"]),
    "all": (([TARGET], [JOB], {"PostgreSQL": WHOLE}), ["2 schedules", "1 of 1"]),
    "the bucket is away": (([UNAVAILABLE], [JOB], {"PostgreSQL": WHOLE}), ["2 schedules", "0 of 1; default: 403"]),
}


@pytest.mark.parametrize("case", BACKUPS)
def test_the_absence_of_backups_is_said_and_a_bucket_that_is_away_fails(case: str) -> None:
    found, expected = BACKUPS[case]
    checks = list(freshness.backup_checks(*found))
    assert [check.result[-len(end) :] for check, end in zip(checks, expected, strict=True)] == expected
    assert [check.passed for check in checks[1:]] == [case != "the bucket is away"] * len(checks[1:])
    assert checks[0].advisory


NOW = dt.datetime(2026, 9, 4, 12, tzinfo=dt.UTC)
HEAD = {"name": "fluodata-pg", "namespace": "fluodata"}
ARCHIVED = {"type": "ContinuousArchiving", "status": "True"}
UNARCHIVED = {**ARCHIVED, "status": "False", "message": "exit status 2"}
TODAY, YESTERDAY, BEFORE = "2026-09-04T01:30:00Z", "2026-09-03T01:30:00Z", "2026-09-02T01:30:00Z"


def database(*conditions: dict[str, Any], **parameters: str) -> dict[str, Any]:
    plugin = {"name": "p", "isWALArchiver": True, "parameters": {"barmanObjectName": "backups", **parameters}}
    return {"metadata": HEAD, "spec": {"plugins": [plugin]}, "status": {"conditions": list(conditions)}}


def schedule(last: str = TODAY, following: str = "2026-09-05T01:30:00Z", **spec: Any) -> dict[str, Any]:
    spec = {"cluster": {"name": "fluodata-pg"}, **spec}
    return {"metadata": HEAD, "spec": spec, "status": {"lastScheduleTime": last, "nextScheduleTime": following}}


def object_store(done: str | None = TODAY, failed: str | None = None, server: str = "fluodata-pg") -> dict[str, Any]:
    times = {"lastSuccessfulBackupTime": done, "lastFailedBackupTime": failed}
    window = {name: time for name, time in times.items() if time}
    head = {"name": "backups", "namespace": "fluodata"}
    return {"metadata": head, "status": {"serverRecoveryWindow": {server: window}}}


RESTORABLE: dict[str, tuple[tuple[list[Any], list[Any], list[Any]], str]] = {
    "fresh": (([database(ARCHIVED)], [schedule()], [object_store()]), "1 of 1"),
    "no archive": (
        ([database(UNARCHIVED)], [schedule()], [object_store()]),
        "0 of 1; fluodata/fluodata-pg: its write-ahead log is not archived: exit status 2",
    ),
    "no report": (
        ([database()], [schedule()], [object_store()]),
        "0 of 1; fluodata/fluodata-pg: its write-ahead log is not archived: not reported",
    ),
    "none yet": (
        ([database(ARCHIVED)], [schedule()], [{"metadata": HEAD}]),
        "0 of 1; fluodata/fluodata-pg: there is no backup yet",
    ),
    "failed": (
        ([database(ARCHIVED)], [schedule()], [object_store(YESTERDAY, TODAY)]),
        "0 of 1; fluodata/fluodata-pg: the backup of 2026-09-04 01:30 failed",
    ),
    "failed before": (([database(ARCHIVED)], [schedule()], [object_store(TODAY, YESTERDAY)]), "1 of 1"),
    "never came": (
        ([database(ARCHIVED)], [schedule()], [object_store(YESTERDAY)]),
        "0 of 1; fluodata/fluodata-pg: the backup of 2026-09-04 01:30 was not made",
    ),
    "on its way": (([database(ARCHIVED)], [schedule("2026-09-04T11:00:00Z")], [object_store(YESTERDAY)]), "1 of 1"),
    "the operator schedules nothing": (
        ([database(ARCHIVED)], [schedule(BEFORE, YESTERDAY)], [object_store(BEFORE)]),
        "0 of 1; fluodata/fluodata-pg: the backup of 2026-09-03 01:30 was not made",
    ),
    "suspended": (
        ([database(ARCHIVED)], [schedule(suspend=True)], [object_store()]),
        "0 of 1; fluodata/fluodata-pg: is suspended",
    ),
    "another server": (
        ([database(ARCHIVED, serverName="fluodata-pg-2")], [schedule()], [object_store()]),
        "0 of 1; fluodata/fluodata-pg: there is no backup yet",
    ),
    "restored": (
        ([database(ARCHIVED, serverName="new")], [schedule()], [object_store(server="new")]),
        "1 of 1",
    ),
    "no cluster": (
        ([], [schedule()], [object_store()]),
        "0 of 1; fluodata/fluodata-pg: Cluster fluodata-pg does not exist",
    ),
}


@pytest.mark.parametrize("case", RESTORABLE)
def test_a_database_can_be_restored_by_the_evidence_of_its_plugin(case: str) -> None:
    found, expected = RESTORABLE[case]
    (check,) = freshness.database_checks(*found, NOW)
    assert (check.result, check.passed) == (expected, expected == "1 of 1")
    assert not check.advisory


def test_without_a_schedule_there_is_nothing_to_restore() -> None:
    assert list(freshness.database_checks([database(ARCHIVED)], [], [], NOW)) == []


def export(done: str | None = None, due: str | None = None, created: str = TODAY, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "export", "namespace": "fluodata", "uid": "u1", "creationTimestamp": created}
    times = {"lastSuccessfulTime": done, "lastScheduleTime": due}
    status = {name: time for name, time in times.items() if time}
    return {"metadata": metadata, "spec": {"schedule": "30 1 * * *", **spec}, "status": status}


def job(time: str, owner: str = "u1", kind: str = "Failed") -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": time}]
    return {"metadata": {"ownerReferences": [{"uid": owner}]}, "status": {"conditions": conditions}}


EXPORTS: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "fresh": (export(TODAY, TODAY), [job(TODAY, kind="Complete")], ""),
    "its time has not come": (export(), [], ""),
    "failed": (export(YESTERDAY, TODAY), [job(TODAY)], "failed at 2026-09-04 01:30"),
    "never succeeded": (export(None, TODAY), [job(TODAY)], "failed at 2026-09-04 01:30"),
    "succeeded again": (export(TODAY, YESTERDAY), [job(YESTERDAY)], ""),
    "another's failure": (export(TODAY, TODAY), [job("2026-09-04T02:00:00Z", owner="u2")], ""),
    "still running": (export("2026-09-03T11:00:00Z", "2026-09-04T11:00:00Z"), [], ""),
    "hangs": (export(YESTERDAY, TODAY), [], "the export of 2026-09-04 01:30 was not made"),
    "nothing schedules it": (export(YESTERDAY, YESTERDAY), [], "there is no export since 2026-09-03 01:30"),
    "weekly": (export(YESTERDAY, YESTERDAY, schedule="30 1 * * 0"), [], ""),
    "suspended": (export(TODAY, TODAY, suspend=True), [], "is suspended"),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_an_export_is_fresh_by_its_schedule_and_its_jobs(case: str) -> None:
    found, jobs, expected = EXPORTS[case]
    (check,) = freshness.export_checks([found], jobs, NOW)
    assert (check.passed, check.advisory) == (not expected, False)
    assert check.result == (f"0 of 1; fluodata/export: {expected}" if expected else "1 of 1")


def test_what_expires_within_thirty_days_fails() -> None:
    check = health.days_check("certificates", {"a": 29, "b": 30, "c": None, "d": -1}, "renew")
    assert (check.passed, check.result) == (False, "2 of 4; a: 29 days; d: -1 days")


def test_versions_out_of_support_are_named_but_stop_nothing(root: Path, phase3: Platform) -> None:
    supported = params.load_supported(root).model_copy(
        update={"support": {"talos": {"1.13": "2026-09-03", "1.14": "when 1.15 comes out"}}}
    )
    kept = phase3.model_copy(update={"versions": phase3.versions.model_copy(update={"talos": "1.13.9"})})
    check = health.support_check(kept, supported, dt.date(2026, 9, 4))
    assert (check.passed, check.advisory) == (False, True)
    assert check.result == "Talos 1.13: ended 2026-09-03; Kubernetes 1.35: until unknown"
    assert health.support_check(kept, supported, dt.date(2026, 9, 3)).passed
    newer = phase3.model_copy(update={"versions": phase3.versions.model_copy(update={"talos": "1.14.1"})})
    assert health.support_check(newer, supported, dt.date(2030, 1, 1)).passed


@pytest.mark.lab
def test_the_gates_follow_the_platform(labs: Any) -> None:
    lab = labs("talos.etcd-behind", phase="phase3")
    with pytest.raises(StageMissing) as missing:
        lab.stage("health").verify()
    assert "bootstrap-kubernetes" in missing.value.remedy
    lab.bring_up("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    expectations = {
        "talos.etcd-behind": "no member of etcd is far behind the leader: 2 of 3",
        "talos.etcd-learner": "no member of etcd is a learner: 2 of 3",
        "talos.etcd-no-space": "etcd has no alarm and reports no error: talos-cp-1: NOSPACE",
    }
    for fault, expected in expectations.items():
        lab.inject(fault)
        lab.mark()
        with pytest.raises(CheckFailed) as raised:
            lab.stage("health").verify()
        assert expected in str(raised.value)
        assert lab.requests(mutating=True) == []
    lab.inject()
    checks = lab.stage("health").verify()
    assert "all members agree" in {check.result for check in checks.checks}
