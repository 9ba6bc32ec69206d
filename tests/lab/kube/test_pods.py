"""Pods that cannot run on their machine, and pods of Jobs that fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.pods import can_run, why_not_on
from fluobook_lab.kube.kubelet import NodeInfo
from fluobook_lab.kube.objects import is_true

from fluobook.stages.core.readiness import why_its_pods_wait

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
