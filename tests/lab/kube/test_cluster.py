"""Nodes, workloads and what becomes of them: the controllers together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.kubelet import NodeInfo
from fluobook_lab.kube.objects import condition, is_true

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab

APPS = "apps/v1"


@pytest.fixture
def ready(kubernetes: Callable[..., Any], nodes: Any, cilium: dict[str, Any]) -> Any:
    """A cluster whose nodes are ready."""
    rig = kubernetes(nodes=nodes)
    rig.kube.apply(cilium)
    rig.until(lambda: len([n for n in rig.kube.list("v1", "Node") if is_true(n, "Ready")]) == 2)
    return rig


def node_is(rig: Any, name: str, status: str) -> bool:
    node = rig.kube.find("v1", "Node", name)
    return bool(node and (condition(node, "Ready") or {}).get("status") == status)


def test_nodes_are_not_ready_before_the_cni_runs(kubernetes: Callable[..., Any], nodes: Any, cilium: Any) -> None:
    rig = kubernetes(nodes=nodes)
    rig.until(lambda: node_is(rig, "worker-1", "False"))
    node = rig.kube.get("v1", "Node", "worker-1")
    assert "cni plugin not initialized" in condition(node, "Ready")["message"]
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["node.kubernetes.io/not-ready"]
    rig.kube.apply(cilium)
    rig.until(lambda: node_is(rig, "worker-1", "True"))
    assert "taints" not in rig.kube.get("v1", "Node", "worker-1")["spec"]


def test_a_control_plane_has_its_role_taint_and_static_pods(ready: Any) -> None:
    node = ready.kube.get("v1", "Node", "cp-1")
    assert "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["node-role.kubernetes.io/control-plane"]
    pods = {pod["metadata"]["name"] for pod in ready.kube.list("v1", "Pod", "kube-system")}
    assert {"kube-apiserver-cp-1", "kube-scheduler-cp-1", "kube-controller-manager-cp-1"} <= pods


def test_each_node_has_its_own_pod_network_and_lease(ready: Any) -> None:
    networks = {node["spec"]["podCIDR"] for node in ready.kube.list("v1", "Node")}
    assert networks == {"10.244.0.0/24", "10.244.1.0/24"}
    leases = ready.kube.list("coordination.k8s.io/v1", "Lease", "kube-node-lease")
    assert {lease["spec"]["holderIdentity"] for lease in leases} == {"cp-1", "worker-1"}


def test_a_node_that_lost_power_becomes_unknown_and_comes_back(
    kubernetes: Callable[..., Any], cilium: Any, deployment: Any
) -> None:
    rig = kubernetes(speed=200)
    machine = NodeInfo("worker-1", ("10.10.0.20",))
    kubelet = rig.background.call(rig.lab.join, machine)
    rig.kube.apply(cilium)
    rig.kube.apply(deployment)
    available(rig, "web")
    network = rig.kube.get("v1", "Node", "worker-1")["spec"]["podCIDR"]
    rig.background.call(kubelet.stop)
    rig.until(lambda: node_is(rig, "worker-1", "Unknown"))
    taints = rig.kube.get("v1", "Node", "worker-1")["spec"]["taints"]
    assert [taint["key"] for taint in taints] == ["node.kubernetes.io/unreachable"]
    rig.until(lambda: not is_true(rig.kube.get(APPS, "Deployment", "web", "default"), "Available"))
    rig.background.call(rig.lab.join, machine)
    rig.until(lambda: node_is(rig, "worker-1", "True"))
    available(rig, "web")
    assert rig.kube.get("v1", "Node", "worker-1")["spec"]["podCIDR"] == network
    assert client_requests(rig) == 1
    rig.background.call(lambda: rig.lab.join(machine, wiped=True))
    rig.until(lambda: client_requests(rig) == 2)


def client_requests(rig: Any) -> int:
    requests = rig.kube.list("certificates.k8s.io/v1", "CertificateSigningRequest")
    return len([request for request in requests if request["spec"]["signerName"].endswith("client-kubelet")])


def test_namespaces_have_their_account_and_ca(ready: Any) -> None:
    ready.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    ready.until(lambda: ready.kube.find("v1", "ServiceAccount", "default", "team"))
    root = ready.until(lambda: ready.kube.find("v1", "ConfigMap", "kube-root-ca.crt", "team"))
    assert root["data"]["ca.crt"] == ready.authority.crt


def available(rig: Any, name: str, namespace: str = "default") -> Any:
    return rig.until(lambda: is_true(rig.kube.get(APPS, "Deployment", name, namespace), "Available"))


def test_a_deployment_becomes_available_and_replaces_its_pods(ready: Any, deployment: dict[str, Any]) -> None:
    ready.kube.apply(deployment)
    available(ready, "web")
    first = {pod["metadata"]["name"] for pod in ready.kube.list("v1", "Pod", "default")}
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "lab.invalid/main:2"
    ready.kube.apply(deployment)

    def replaced() -> bool:
        pods = ready.kube.list("v1", "Pod", "default")
        return bool(pods) and not first & {pod["metadata"]["name"] for pod in pods}

    ready.until(replaced)
    sets = ready.kube.list(APPS, "ReplicaSet", "default")
    assert sorted(replica_set["spec"]["replicas"] for replica_set in sets) == [0, 1]


def test_a_pod_that_is_not_admitted_is_told_on_its_replica_set(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(make_workload("Deployment", "rude", hostPID=True))

    def failure() -> Any:
        sets = ready.kube.list(APPS, "ReplicaSet", "default")
        failures = (condition(replica_set, "ReplicaFailure") for replica_set in sets)
        return next(filter(None, failures), None)

    assert 'violates PodSecurity "baseline:latest"' in ready.until(failure)["message"]
    events = ready.until(lambda: ready.kube.list("v1", "Event", "default"))
    assert any(event["reason"] == "FailedCreate" for event in events)
    body = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    ready.kube.patch("v1", "Namespace", "default", body=body)
    available(ready, "rude")


def test_a_pod_waits_for_its_secret(ready: Any, make_workload: Any) -> None:
    waiting = make_workload("Deployment", "waiting")
    key = {"name": "key", "key": "a"}
    waiting["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "valueFrom": {"secretKeyRef": key}}]
    ready.kube.apply(waiting)

    def stuck() -> bool:
        pods = ready.kube.list("v1", "Pod", "default")
        states = [s["state"] for p in pods for s in (p.get("status") or {}).get("containerStatuses") or []]
        return "CreateContainerConfigError" in [state.get("waiting", {}).get("reason") for state in states]

    ready.until(stuck)
    metadata = {"name": "key", "namespace": "default"}
    ready.kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"a": "b"}})
    available(ready, "waiting")


def test_images_that_cannot_be_pulled(ready: Any, deployment: dict[str, Any]) -> None:
    ready.faults.add("kube.image-pull-fails")
    ready.kube.apply(deployment)
    ready.until(lambda: "ImagePullBackOff" in ready.kubectl("get", "pods"))


def test_deleting_a_deployment_takes_its_pods_along(ready: Any, deployment: dict[str, Any]) -> None:
    ready.kube.apply(deployment)
    available(ready, "web")
    ready.kube.delete(APPS, "Deployment", "web", "default")
    ready.until(lambda: not ready.kube.list("v1", "Pod", "default"))
    assert not ready.kube.list(APPS, "ReplicaSet", "default")


@pytest.mark.parametrize("propagation", ["Foreground", "Orphan"])
def test_a_deletion_waits_for_dependents_or_frees_them(ready: Any, deployment: Any, propagation: str) -> None:
    ready.kube.apply(deployment)
    available(ready, "web")
    ready.kube.delete(APPS, "Deployment", "web", "default", propagation=propagation)
    ready.until(lambda: ready.kube.find(APPS, "Deployment", "web", "default") is None)
    left = ready.kube.list(APPS, "ReplicaSet", "default")
    if propagation == "Foreground":
        assert left == []
    else:
        assert "ownerReferences" not in left[0]["metadata"]


def storage_class(provisioner: str = "example.org/disks") -> dict[str, Any]:
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}
    return {**head, "provisioner": provisioner}


def test_a_stateful_set_numbers_its_pods_and_claims(ready: Any, make_workload: Any) -> None:
    made = make_workload("StatefulSet", "db")
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }
    made["spec"] |= {"serviceName": "db", "replicas": 2}
    made["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    ready.kube.apply(made)
    ready.until(lambda: ready.kube.find("v1", "PersistentVolumeClaim", "data-db-0", "default"))
    assert ready.kube.find("v1", "Pod", "db-1", "default") is None
    ready.kube.apply(storage_class())
    ready.until(
        lambda: ready.kube.get(APPS, "StatefulSet", "db", "default").get("status", {}).get("readyReplicas") == 2
    )
    claims = ready.kube.list("v1", "PersistentVolumeClaim", "default")
    assert [(c["metadata"]["name"], c["status"]["phase"]) for c in claims] == [
        ("data-db-0", "Bound"),
        ("data-db-1", "Bound"),
    ]


def test_longhorns_claims_wait_for_its_manager(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(storage_class("driver.longhorn.io"))
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}
    ready.kube.create(claim)
    ready.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "longhorn-system"}})
    assert ready.kube.get("v1", "PersistentVolumeClaim", "c", "default")["status"]["phase"] == "Pending"
    ready.kube.apply(make_workload("DaemonSet", "longhorn-manager", "longhorn-system"))
    ready.until(lambda: ready.kube.get("v1", "PersistentVolumeClaim", "c", "default")["status"]["phase"] == "Bound")


def test_a_job_runs_to_its_end(ready: Any) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}
    spec = {"template": {"spec": pod}}
    ready.kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": spec})
    ready.until(lambda: is_true(ready.kube.get("batch/v1", "Job", "once", "default"), "Complete"))
    assert ready.kube.list("v1", "Pod", "default")[0]["status"]["phase"] == "Succeeded"


def test_a_job_that_cannot_run_fails_at_its_deadline(ready: Any) -> None:
    pod = {"restartPolicy": "Never", "nodeSelector": {"there": "is-none"}, "containers": [{"name": "c", "image": "i"}]}
    spec = {"activeDeadlineSeconds": 20, "template": {"spec": pod}}
    ready.kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "late"}, "spec": spec})
    ready.until(lambda: is_true(ready.kube.get("batch/v1", "Job", "late", "default"), "Failed"))
    ready.until(lambda: not ready.kube.list("v1", "Pod", "default"))


def test_services_have_the_ready_pods_as_endpoints(ready: Any, deployment: dict[str, Any]) -> None:
    labels = deployment["spec"]["selector"]["matchLabels"]
    metadata = {"name": "web", "namespace": "default"}
    spec = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    ready.kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    ready.kube.apply(deployment)

    def endpoints() -> list[str]:
        endpoint_slice = ready.kube.find("discovery.k8s.io/v1", "EndpointSlice", "web", "default") or {"endpoints": []}
        return [e["addresses"][0] for e in endpoint_slice.get("endpoints") or [] if e["conditions"]["ready"]]

    address = ready.until(endpoints)[0]
    assert address.startswith("10.244.1.")


def pool_definition() -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": "cilium.io",
        "scope": "Cluster",
        "names": {"kind": "CiliumLoadBalancerIPPool", "plural": "ciliumloadbalancerippools"},
        "versions": [{"name": "v2", "served": True, "storage": True, "schema": schema}],
    }
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**head, "metadata": {"name": "ciliumloadbalancerippools.cilium.io"}, "spec": spec}


def test_load_balancers_get_an_address_of_the_pool_that_selects_them(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(make_workload("Deployment", "cilium-operator", "kube-system"))
    ready.kube.apply(pool_definition())
    for name, start in (("ingress", "10.10.0.100"), ("mqtt", "10.10.0.120")):
        spec = {
            "blocks": [{"start": start, "stop": start}],
            "serviceSelector": {"matchLabels": {"fluobook/pool": name}},
        }
        pool = {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumLoadBalancerIPPool",
            "metadata": {"name": name},
            "spec": spec,
        }
        ready.kube.apply(pool)
    for name, labels in (("broker", {"fluobook/pool": "mqtt"}), ("second", {"fluobook/pool": "mqtt"}), ("none", {})):
        metadata = {"name": name, "namespace": "default", "labels": labels}
        spec = {"type": "LoadBalancer", "ports": [{"port": 1883}]}
        ready.kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})

    def addresses() -> dict[str, Any]:
        services = ready.kube.list("v1", "Service", "default")
        assigned = {
            s["metadata"]["name"]: (s["status"]["loadBalancer"].get("ingress") or [{}])[0].get("ip")
            for s in services
            if condition(s, "cilium.io/IPAMRequestSatisfied")
        }
        return assigned if len(assigned) == 3 else {}

    assigned = ready.until(addresses)
    assert assigned["none"] is None
    assert sorted(str(assigned[name]) for name in ("broker", "second")) == ["10.10.0.120", "None"]


def issuer_definition() -> dict[str, Any]:
    definition = pool_definition()
    definition["metadata"]["name"] = "clusterissuers.cert-manager.io"
    names = {"kind": "ClusterIssuer", "plural": "clusterissuers"}
    definition["spec"] |= {"group": "cert-manager.io", "names": names}
    definition["spec"]["versions"][0] |= {"name": "v1", "subresources": {"status": {}}}
    return definition


def test_an_operator_reports_once_it_runs(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(issuer_definition())
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "own"}, "spec": {}}
    ready.kube.apply(issuer)
    assert "status" not in ready.kube.get("cert-manager.io/v1", "ClusterIssuer", "own")
    ready.kube.apply(make_workload("Deployment", "cert-manager"))
    ready.until(lambda: is_true(ready.kube.get("cert-manager.io/v1", "ClusterIssuer", "own"), "Ready"))


def database_definition() -> dict[str, Any]:
    definition = issuer_definition()
    definition["metadata"]["name"] = "clusters.postgresql.cnpg.io"
    definition["spec"] |= {
        "group": "postgresql.cnpg.io",
        "scope": "Namespaced",
        "names": {"kind": "Cluster", "plural": "clusters"},
    }
    return definition


def test_a_database_is_healthy_when_its_instances_are(ready: Any, make_workload: Any) -> None:
    ready.kube.apply(database_definition())
    ready.kube.apply(storage_class())
    ready.kube.apply(make_workload("Deployment", "operator", labels={"app.kubernetes.io/name": "cloudnative-pg"}))
    spec = {"instances": 2, "storage": {"size": "1Gi", "storageClass": "fast"}}
    head = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster"}
    ready.kube.apply({**head, "metadata": {"name": "pg", "namespace": "default"}, "spec": spec})

    def healthy() -> bool:
        status = ready.kube.get("postgresql.cnpg.io/v1", "Cluster", "pg", "default").get("status") or {}
        return status.get("phase") == "Cluster in healthy state" and status.get("readyInstances") == 2

    ready.until(healthy)
    assert ready.kube.get("v1", "Service", "pg-rw", "default")["spec"]["selector"]["cnpg.io/cluster"] == "pg"
