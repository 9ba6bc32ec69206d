"""The lab's cert-manager: who asks for certificates, and what stays open without an issuer."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.faults import Faults
from fluobook_lab.kube.controllers.issuing import Issuing

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

API = "cert-manager.io/v1"
INGRESS = ("networking.k8s.io/ingresses/default", "web")
CERTIFICATE = ("cert-manager.io/certificates/default", "web-tls")
ISSUER = ("cert-manager.io/clusterissuers/", "acme")


class Clock:
    """Every question for the time finds ten seconds gone."""

    def __init__(self) -> None:
        self._times = count(0, 10)

    def now(self) -> float:
        return float(next(self._times))


def crd(group: str, version: str, kind: str, plural: str, scope: str = "Namespaced") -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    spec = {"group": group, "scope": scope, "names": names, "versions": [served]}
    metadata = {"name": f"{plural}.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture
def cluster(store: Store, make_workload: Any) -> Store:
    store.create(crd("cert-manager.io", "v1", "Certificate", "certificates"))
    store.create(crd("cert-manager.io", "v1", "ClusterIssuer", "clusterissuers", "Cluster"))
    store.create(crd("gateway.networking.k8s.io", "v1", "Gateway", "gateways"))
    deployment = store.create(make_workload("Deployment", "cert-manager"))
    store.set_status(deployment, {"conditions": [{"type": "Available", "status": "True"}]})
    acme = {"acme": {"server": "https://acme.example.org/directory"}}
    store.create({"apiVersion": API, "kind": "ClusterIssuer", "metadata": {"name": "acme"}, "spec": acme})
    return store


def reconcile(store: Store, *keys: tuple[str, str], faults: tuple[str, ...] = ()) -> None:
    controller = Issuing(store, Clock(), 1, Faults(faults))
    for key in keys:
        while controller.reconcile(key) is not None:
            pass


def conditions(store: Store, version: str, kind: str, name: str, namespace: str = "") -> dict[str, str]:
    status = store.get(version, kind, name, namespace).get("status") or {}
    return {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}


def ingress() -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "default", "annotations": {"cert-manager.io/cluster-issuer": "acme"}}
    spec = {
        "tls": [{"hosts": ["web.example.org"], "secretName": "web-tls"}],
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def test_an_annotated_ingress_gets_a_certificate_and_its_secret(cluster):
    cluster.create(ingress())
    reconcile(cluster, ISSUER, INGRESS, CERTIFICATE)
    assert cluster.get(API, "Certificate", "web-tls", "default")["spec"]["dnsNames"] == ["web.example.org"]
    assert conditions(cluster, API, "Certificate", "web-tls", "default") == {"Ready": "True"}
    assert cluster.get("v1", "Secret", "web-tls", "default")["type"] == "kubernetes.io/tls"


def test_without_an_acme_server_issuer_and_certificate_are_not_ready_and_there_is_no_secret(cluster):
    cluster.create(ingress())
    reconcile(cluster, ISSUER, INGRESS, CERTIFICATE, faults=("kube.issuer-unreachable",))
    assert conditions(cluster, API, "ClusterIssuer", "acme") == {"Ready": "False"}
    assert conditions(cluster, API, "Certificate", "web-tls", "default") == {"Issuing": "True", "Ready": "False"}
    assert cluster.find("v1", "Secret", "web-tls", "default") is None
