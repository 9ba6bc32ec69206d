"""Pods that cannot run on their machine, and pods of Jobs that fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.longhorn import API, NAMESPACE
from fluobook_lab.kube.controllers.nodes import may_evict, tolerated_seconds
from fluobook_lab.kube.controllers.pods import can_run, why_not_on
from fluobook_lab.kube.kubelet import NodeInfo
from fluobook_lab.kube.objects import is_true

from fluobook.stages.core.readiness import why_its_pods_wait
from tests.lab.kube.test_longhorn import crd

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = NodeInfo("worker-1", ("10.10.0.20",))


def pod(rig: Any, name: str) -> Any:
    return next((p for p in rig.kube.list("v1", "Pod", "default") if p["metadata"]["name"].startswith(name)), None)


def test_scylladb_crashes_on_a_cpu_without_pclmulqdq_until_it_has_it(
    kubernetes: Callable[..., Any], cilium: Any, make_workload: Any
) -> None:
    rig = kubernetes(speed=200, nodes=(replace(NODE, cpu_features=frozenset({"sse4_2"})),))
    rig.kube.apply(cilium)
    scylla, other = make_workload("Deployment", "scylla"), make_workload("Deployment", "web")
    scylla["spec"]["template"]["spec"]["containers"][0]["image"] = "docker.io/scylladb/scylla:2026.1.3"
    rig.kube.apply(scylla)
    rig.kube.apply(other)
    rig.until(lambda: is_true(rig.kube.get("apps/v1", "Deployment", "web", "default"), "Available"))

    def restarted() -> Any:
        status = (pod(rig, "scylla") or {}).get("status") or {}
        container = next(iter(status.get("containerStatuses") or ()), {})
        return status if container.get("restartCount", 0) > 1 else None

    status = rig.until(restarted)
    container = status["containerStatuses"][0]
    assert status["phase"] == "Running"
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 71
    assert not container["ready"]
    deployment = rig.kube.get("apps/v1", "Deployment", "scylla", "default")
    assert not is_true(deployment, "Available")
    assert "CrashLoopBackOff: exit code 71: back-off" in why_its_pods_wait(rig.kube, deployment)
    rig.join(NODE)
    rig.until(lambda: is_true(rig.kube.get("apps/v1", "Deployment", "scylla", "default"), "Available"))


def node(name: str, **spec: Any) -> Any:
    labels = {"kubernetes.io/hostname": name}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": ready}


TAINT = {"key": "maintenance", "value": "true", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "target", "reason"),
    [
        ({}, node("a"), ""),
        ({}, node("a", unschedulable=True), "node(s) were unschedulable"),
        ({}, node("a", taints=[TAINT]), "node(s) had untolerated taint {maintenance: true}"),
        ({}, node("a", taints=[TAINT | {"effect": "PreferNoSchedule"}]), ""),
        ({"tolerations": [{"key": "maintenance", "operator": "Exists"}]}, node("a", taints=[TAINT]), ""),
        ({"nodeSelector": {"disk": "fast"}}, node("a"), "node(s) didn't match Pod's node affinity/selector"),
        ({}, {**node("a"), "status": {}}, "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"),
    ],
)
def test_the_scheduler_says_why_a_pod_cannot_run_on_a_node(spec: Any, target: Any, reason: str) -> None:
    assert why_not_on(spec, target) == reason
    assert can_run(spec, target) == (not reason)


def test_a_pod_without_a_node_counts_the_reasons_of_all_nodes(
    kubernetes: Callable[..., Any], cilium: Any, make_workload: Any
) -> None:
    rig = kubernetes(speed=200, nodes=(NODE,))
    rig.kube.apply(cilium)
    rig.until(lambda: is_true(rig.kube.get("v1", "Node", NODE.name), "Ready"))
    rig.kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE.name}, "spec": {"taints": [TAINT]}})
    rig.kube.apply(make_workload("Deployment", "web"))
    reason = "0/1 nodes are available: 1 node(s) had untolerated taint {maintenance: true}."
    deployment = rig.kube.get("apps/v1", "Deployment", "web", "default")
    rig.until(lambda: reason in why_its_pods_wait(rig.kube, deployment))


JOB = "longhorn-uninstall"


@pytest.mark.parametrize(
    ("setting", "end"),
    [
        (None, "Failed"),
        ("deleting-confirmation-flag: false", "Failed"),
        ("deleting-confirmation-flag: true", "Complete"),
        ('deleting-confirmation-flag: "true"', "Complete"),
    ],
)
def test_longhorns_uninstall_fails_unless_the_setting_confirms_it(
    setting: str | None, end: str, kubernetes: Callable[..., Any], cilium: Any
) -> None:
    rig = kubernetes(speed=200, nodes=(NODE,))
    rig.kube.apply(cilium)
    space = {"namespace": "longhorn-system"}
    rig.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space["namespace"]}})
    if setting:
        metadata = {"name": "longhorn-default-setting", **space}
        data = {"default-setting.yaml": f"default-replica-count: 1\n{setting}\n"}
        rig.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "lab.invalid/x:1"}]}}
    for name in (JOB, "other"):
        spec = {"backoffLimit": 1, "template": template}
        rig.kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, **space}, "spec": spec})

    def ended(name: str) -> Any:
        job = rig.kube.get("batch/v1", "Job", name, space["namespace"])
        return job["status"] if is_true(job, "Complete") or is_true(job, "Failed") else None

    status, other = rig.until(lambda: ended(JOB)), rig.until(lambda: ended("other"))
    reasons = {condition["type"]: condition["reason"] for condition in status["conditions"]}
    assert reasons[end] == {"Failed": "BackoffLimitExceeded", "Complete": "CompletionsReached"}[end]
    assert (status.get("failed", 0), other.get("succeeded")) == ({"Failed": 2, "Complete": 0}[end], 1)


def test_a_pod_whose_node_was_deleted_starts_on_another_one(
    kubernetes: Callable[..., Any], cilium: Any, make_workload: Any
) -> None:
    rig = kubernetes(speed=200, nodes=(NODE,))
    rig.kube.apply(cilium)
    rig.kube.apply(make_workload("StatefulSet", "data"))
    rig.until(lambda: is_true(pod(rig, "data") or {}, "Ready"))
    rig.kube.delete("v1", "Node", NODE.name)
    rig.until(lambda: (found := pod(rig, "data")) and not found["spec"].get("nodeName"))
    rig.join(replace(NODE, name="worker-2"))
    rig.until(lambda: pod(rig, "data")["spec"].get("nodeName") == "worker-2")


@pytest.mark.parametrize(
    ("ready", "begun", "expected"),
    [
        ([False, True, True], False, True),
        ([False, False, True], False, True),
        ([False, False, False], True, False),
        ([False, False, False, True, True], False, False),
        ([False, False, False, True, True], True, True),
        ([False, False, False, True, True, True], False, True),
    ],
    ids=["one of three", "two of three", "all", "most", "most, but this one was before", "half"],
)
def test_pods_are_not_evicted_when_all_or_most_nodes_are_lost(ready: Any, begun: bool, expected: bool) -> None:
    assert may_evict(ready, begun=begun) is expected


LOST = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 0),
        ([{"operator": "Exists"}], None),
        ([{"operator": "Exists", "effect": "NoSchedule"}], 0),
        ([{**LOST, "operator": "Exists", "tolerationSeconds": 300}], 300),
        ([{**LOST, "operator": "Exists", "tolerationSeconds": -1}], 0),
        ([{"operator": "Exists"}, {**LOST, "operator": "Exists", "tolerationSeconds": 300}], None),
    ],
)
def test_a_pod_stays_on_a_lost_node_as_long_as_it_tolerates_that(tolerations: Any, seconds: float | None) -> None:
    assert tolerated_seconds({"tolerations": tolerations}, [LOST]) == seconds


OTHER = replace(NODE, name="worker-2", addresses=("10.10.0.21",))


def uids(rig: Any, node: str) -> dict[str, str]:
    """The pods on a node that are not on their way out."""
    return rig.background.call(stored_uids, rig, node)


def stored_uids(rig: Any, node: str) -> dict[str, str]:
    """The same, in the lab's own thread; without a quorum, too."""
    pods = [pod for pod in rig.lab.api.store.list("v1", "Pod") if not pod["metadata"].get("deletionTimestamp")]
    return {p["metadata"]["uid"]: p["metadata"]["name"] for p in pods if p["spec"].get("nodeName") == node}


def is_lost(rig: Any) -> bool:
    taints = rig.lab.api.store.get("v1", "Node", NODE.name)["spec"].get("taints") or ()
    return LOST in taints


def lose(rig: Any, then: Callable[[], Any]) -> None:
    """Stop the node's kubelet, and go on as soon as it is lost; in the lab's own thread, so long before an eviction."""

    async def lost() -> None:
        watch = rig.lab.api.store.watch("v1", "Node")
        rig.lab._kubelets[NODE.name].stop()
        async for _ in watch:
            if is_lost(rig):
                break
        watch.close()
        then()

    rig.background.run(lost())


@pytest.fixture
def two(kubernetes: Callable[..., Any], cilium: Any, make_workload: Any) -> Any:
    """Two workers, each with pods of a Deployment, a StatefulSet and a DaemonSet."""
    rig = kubernetes(speed=200, nodes=(NODE, OTHER))
    rig.kube.apply(cilium)
    rig.until(lambda: sum(is_true(node, "Ready") for node in rig.kube.list("v1", "Node")) == 2)
    deployment, stateful = make_workload("Deployment", "web"), make_workload("StatefulSet", "data")
    for workload in (deployment, stateful):
        workload["spec"]["replicas"] = 4
        rig.kube.apply(workload)
    rig.until(lambda: is_true(rig.kube.get("apps/v1", "Deployment", "web", "default"), "Available"))
    rig.until(lambda: is_true(rig.kube.find("v1", "Pod", "data-3", "default") or {}, "Ready"))
    return rig


def test_the_pods_of_a_lost_node_move_but_for_those_of_stateful_sets(two: Any) -> None:
    before = uids(two, NODE.name)
    assert {"web", "data", "cilium"} <= {name.partition("-")[0] for name in before.values()}
    two.background.call(two.lab._kubelets[NODE.name].stop)
    two.until(lambda: {name.partition("-")[0] for name in uids(two, NODE.name).values()} == {"cilium"})
    two.until(lambda: is_true(two.kube.get("apps/v1", "Deployment", "web", "default"), "Available"))
    assert len([name for name in uids(two, OTHER.name).values() if name.startswith("web")]) == 4
    stuck = {
        p["metadata"]["uid"] for p in two.kube.list("v1", "Pod", "default") if p["metadata"].get("deletionTimestamp")
    }
    assert stuck < before.keys()
    assert {"web", "data"} <= {before[uid].partition("-")[0] for uid in stuck}
    two.join(NODE)

    def replaced() -> bool:
        pods = two.kube.list("v1", "Pod", "default")
        names = [p["metadata"]["name"] for p in pods if is_true(p, "Ready") and p["metadata"]["uid"] not in stuck]
        return len(names) == len(pods) and len([name for name in names if name.startswith("data")]) == 4

    two.until(replaced)


def test_a_node_that_reboots_keeps_its_pods(two: Any) -> None:
    before = uids(two, NODE.name)
    lose(two, lambda: two.lab.join(NODE))
    two.until(lambda: not two.background.call(is_lost, two))
    two.until(lambda: all(is_true(pod, "Ready") for pod in two.kube.list("v1", "Pod")))
    assert uids(two, NODE.name) == before


def test_no_pod_is_evicted_without_a_quorum(two: Any) -> None:
    before = uids(two, NODE.name)
    lose(two, lambda: setattr(two.lab.api, "has_quorum", lambda: False))
    began = two.lab._clock.now()
    two.until(lambda: two.lab._clock.now() > began + 400)
    assert uids(two, NODE.name) == before

    async def later() -> dict[str, str]:
        two.lab.api.has_quorum = lambda: True
        await two.lab._clock.sleep(50)
        return stored_uids(two, NODE.name)

    assert two.background.run(later()) == before


def test_a_pod_does_not_run_without_a_healthy_copy_of_its_volume(kubernetes: Callable[..., Any], cilium: Any) -> None:
    rig = kubernetes(speed=200, nodes=(NODE,))
    for kind in ("Volume", "Replica", "Node"):
        rig.kube.apply(crd(f"{kind.lower()}s", kind))
    rig.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    rig.kube.apply(cilium)
    capacity, csi = {"storage": "1Gi"}, {"driver": "driver.longhorn.io", "volumeHandle": "pvc-1"}
    spec = {"capacity": capacity, "accessModes": ["ReadWriteOnce"], "storageClassName": "one", "csi": csi}
    spec |= {"claimRef": {"kind": "PersistentVolumeClaim", "name": "data", "namespace": "default"}}
    rig.kube.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-1"}, "spec": spec})
    wanted = {"accessModes": ["ReadWriteOnce"], "storageClassName": "one", "volumeName": "pvc-1"}
    wanted["resources"] = {"requests": capacity}
    metadata = {"name": "data", "namespace": "default"}
    rig.kube.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted})
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]

    def start(name: str) -> None:
        spec = {"containers": [{"name": "main", "image": "lab.invalid/main:1"}], "volumes": volumes}
        metadata = {"name": name, "namespace": "default"}
        rig.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def runs(name: str) -> bool:
        return is_true(pod(rig, name) or {}, "Ready")

    def fail(when: str | None) -> None:
        rig.kube.patch(API, "Replica", "pvc-1-r-0", NAMESPACE, body={"spec": {"failedAt": when}})

    start("first")
    rig.until(lambda: runs("first"))
    fail("2026-01-01T00:00:00Z")
    rig.until(lambda: not runs("first"))
    start("second")
    rig.until(lambda: "is not ready for workloads" in str((pod(rig, "second") or {}).get("status")))
    fail(None)
    rig.until(lambda: runs("first") and runs("second"))
