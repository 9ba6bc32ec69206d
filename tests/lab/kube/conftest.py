"""What the tests of the lab's Kubernetes share: nodes, objects and a bare store."""

from __future__ import annotations

from typing import Any

import pytest
from fluobook_lab.kube.kubelet import NodeInfo
from fluobook_lab.kube.store import Store

CONTROL_PLANE = NodeInfo("cp-1", ("10.10.0.10",), role="controlplane", uuid="7d3a7f9e-0000-4000-8000-000000000001")
WORKER = NodeInfo("worker-1", ("10.10.0.20",), uuid="7d3a7f9e-0000-4000-8000-000000000002")


@pytest.fixture
def store() -> Store:
    return Store(seed=1)


@pytest.fixture
def nodes() -> tuple[NodeInfo, ...]:
    return (CONTROL_PLANE, WORKER)


@pytest.fixture
def deployment() -> dict[str, Any]:
    return workload("Deployment", "web")


@pytest.fixture
def cilium() -> dict[str, Any]:
    spec = {"hostNetwork": True, "tolerations": [{"operator": "Exists"}]}
    return workload("DaemonSet", "cilium", "kube-system", labels={"k8s-app": "cilium"}, **spec)


@pytest.fixture
def make_workload() -> Any:
    return workload


def workload(kind: str, name: str, namespace: str = "default", *, labels: Any = None, **spec: Any) -> dict[str, Any]:
    labels = labels or {"app.kubernetes.io/name": name}
    pod = {"containers": [{"name": "main", "image": "lab.invalid/main:1"}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
