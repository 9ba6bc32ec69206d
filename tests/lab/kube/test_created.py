"""What programs of the platform create when they run: StorageClasses and CustomResourceDefinitions of no chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.created import Created

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

STORAGE_CLASS = """
kind: StorageClass
apiVersion: storage.k8s.io/v1
metadata: {name: longhorn, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: driver.longhorn.io
parameters: {numberOfReplicas: "2"}
"""
MANAGER, OPERATOR = ("longhorn-system", "longhorn-manager"), ("kube-system", "cilium-operator")


@pytest.fixture
def cluster(store: Store, make_workload: Any) -> Store:
    for namespace in (MANAGER[0], OPERATOR[0]):
        if store.find("v1", "Namespace", namespace) is None:
            store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    metadata = {"name": "longhorn-storageclass", "namespace": MANAGER[0]}
    data = {"storageclass.yaml": STORAGE_CLASS}
    store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    store.create(make_workload("DaemonSet", MANAGER[1], MANAGER[0]))
    store.create(make_workload("Deployment", OPERATOR[1], OPERATOR[0]))
    return store


def definitions(store: Store) -> set[str]:
    listed = store.view("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    return {definition["metadata"]["name"] for definition in listed}


def test_a_program_that_does_not_run_creates_nothing(cluster: Store) -> None:
    for key in (MANAGER, OPERATOR):
        Created(cluster).reconcile(key)
    assert cluster.view("storage.k8s.io/v1", "StorageClass") == []
    assert definitions(cluster) == set()


def test_longhorns_manager_creates_the_storage_class_of_its_configmap(cluster: Store) -> None:
    cluster.set_status(cluster.get("apps/v1", "DaemonSet", *reversed(MANAGER)), {"numberReady": 1})
    Created(cluster).reconcile(MANAGER)
    assert cluster.get("storage.k8s.io/v1", "StorageClass", "longhorn")["parameters"] == {"numberOfReplicas": "2"}


def test_ciliums_operator_creates_its_definitions_and_they_are_served(cluster: Store) -> None:
    available = {"conditions": [{"type": "Available", "status": "True"}]}
    cluster.set_status(cluster.get("apps/v1", "Deployment", *reversed(OPERATOR)), available)
    for _ in range(2):  # what exists stays
        Created(cluster).reconcile(OPERATOR)
    assert {"ciliumnetworkpolicies.cilium.io", "ciliumloadbalancerippools.cilium.io"} <= definitions(cluster)
    assert cluster.view("cilium.io/v2alpha1", "CiliumL2AnnouncementPolicy") == []


@pytest.mark.parametrize(
    ("namespace", "job", "secret", "keys"),
    [
        ("argocd", "argocd-redis-secret-init", "argocd-redis", {"auth"}),
        ("ingress-nginx", "ingress-nginx-admission-create", "ingress-nginx-admission", {"ca", "cert", "key"}),
        (
            "kube-system",
            "hubble-generate-certs-fb0952a890",
            "hubble-relay-client-certs",
            {"ca.crt", "tls.crt", "tls.key"},
        ),
    ],
)
def test_the_job_of_a_hook_creates_its_secret_once_it_runs(
    cluster: Store, namespace: str, job: str, secret: str, keys: set[str]
) -> None:
    if cluster.find("v1", "Namespace", namespace) is None:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    containers = [{"name": "main", "image": "main:1"}]
    template = {"metadata": {"labels": {"job": job}}, "spec": {"restartPolicy": "Never", "containers": containers}}
    metadata = {"name": job, "namespace": namespace}
    cluster.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})
    Created(cluster).reconcile((namespace, job))
    assert cluster.find("v1", "Secret", secret, namespace) is None
    cluster.set_status(cluster.get("batch/v1", "Job", job, namespace), {"active": 1})
    Created(cluster).reconcile((namespace, job))
    assert set(cluster.get("v1", "Secret", secret, namespace)["data"]) == keys
