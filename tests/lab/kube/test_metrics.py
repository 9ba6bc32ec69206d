"""metrics.k8s.io on the embedded cluster: an APIService that is answered once its pods are ready, and kubectl top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube import metrics
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import is_true

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.store import Store

pytestmark = pytest.mark.lab

LABELS = {"app.kubernetes.io/name": "metrics-server"}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "metrics-server", "namespace": "kube-system"},
    "spec": {"selector": LABELS, "ports": [{"name": "https", "port": 443, "targetPort": 10250}]},
}
API_SERVICE = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1beta1.metrics.k8s.io"},
    "spec": {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
    },
}


@pytest.fixture
def ready(kubernetes: Callable[..., Any], nodes: Any, cilium: dict[str, Any], make_workload: Any) -> Any:
    """A cluster with ready nodes, a workload that requests half a core and 64 MiB, and an APIService without pods."""
    rig = kubernetes(nodes=nodes)
    web = make_workload("Deployment", "web")
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "500m", "memory": "64Mi"}}
    for obj in (cilium, web, SERVICE, API_SERVICE):
        rig.kube.apply(obj)
    rig.until(lambda: is_true(rig.kube.get("apps/v1", "Deployment", "web", "default"), "Available"))
    return rig


def api_service(rig: Any) -> Any:
    return rig.kube.get("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.k8s.io")


def test_an_api_service_is_available_while_a_pod_of_its_service_is_ready(ready: Any, make_workload: Any) -> None:
    ready.until(lambda: (api_service(ready).get("status") or {}).get("conditions"))
    assert not is_true(api_service(ready), "Available")
    assert "metrics.k8s.io" not in ready.kubectl("api-versions")
    ready.kube.apply(make_workload("Deployment", "metrics-server", "kube-system", labels=LABELS))
    ready.until(lambda: is_true(api_service(ready), "Available"))
    assert "metrics.k8s.io/v1beta1" in ready.kubectl("api-versions")
    ready.kube.delete("apps/v1", "Deployment", "metrics-server", "kube-system")
    ready.until(lambda: not is_true(api_service(ready), "Available"))
    assert "metrics.k8s.io" not in ready.kubectl("api-versions")


def test_kubectl_top_shows_what_pods_request(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(make_workload("Deployment", "metrics-server", "kube-system", labels=LABELS))
    ready.until(lambda: is_true(api_service(ready), "Available"))
    (row,) = ready.kubectl("top", "pods", "-n", "default", "--no-headers").splitlines()
    assert row.split()[1:] == ["500m", "64Mi"]
    used = {row.split()[0]: row.split()[1] for row in ready.kubectl("top", "nodes", "--no-headers").splitlines()}
    assert set(used) == {"cp-1", "worker-1"}
    assert int(used["worker-1"].removesuffix("m")) > 500
    assert "No resources" in ready.kubectl("top", "pods", "-l", "app.kubernetes.io/name=none", "-n", "default")
    measured = ready.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/worker-1")
    assert '"kind":"NodeMetrics"' in measured.replace(" ", "")


def test_metrics_are_read_only(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(make_workload("Deployment", "metrics-server", "kube-system", labels=LABELS))
    ready.until(lambda: is_true(api_service(ready), "Available"))
    with pytest.raises(Exception, match="not allow"):
        ready.kubectl("delete", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/worker-1")


def test_what_the_real_engines_api_servers_ask_for_is_served_by_path(store: Store) -> None:
    metrics.serve(store, available=True)
    root = "/apis/metrics.k8s.io/v1beta1"
    assert [each["name"] for each in metrics.served(store, root, {})["resources"]] == ["nodes", "pods"]
    store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1", "labels": {"rack": "r1"}}})
    for path, query in (("nodes", {"labelSelector": "rack=r1"}), ("nodes", {})):
        assert [each["metadata"]["name"] for each in metrics.served(store, f"{root}/{path}", query)["items"]] == [
            "worker-1"
        ]
    assert metrics.served(store, f"{root}/nodes", {"labelSelector": "rack=r2"})["items"] == []
    assert metrics.served(store, f"{root}/nodes/worker-1", {})["usage"] == {"cpu": "100000000n", "memory": "524288Ki"}
    assert metrics.served(store, f"{root}/namespaces/default/pods", {})["kind"] == "PodMetricsList"
    for path in ("/apis", "/openapi/v3", f"{root}/nodes/worker-9", f"{root}/namespaces/default/pods/a"):
        with pytest.raises(ApiError):
            metrics.served(store, path, {})
