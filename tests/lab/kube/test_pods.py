"""Pods that cannot run on their machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
