from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.services import Ingresses

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

KEY = ("default", "web")
SELECTOR = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}


def ingress(**spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    metadata = {"name": "web", "namespace": "default"}
    body = {"defaultBackend": backend, **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": body}


def ingress_class(name: str = "nginx", controller: str = "k8s.io/ingress-nginx", **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": annotations}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": metadata,
        "spec": {"controller": controller},
    }


@pytest.fixture
def cluster(store: Store) -> Store:
    service = store.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "controller", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "selector": SELECTOR, "ports": [{"port": 80}]},
        }
    )
    store.set_status(service, {"loadBalancer": {"ingress": [{"ip": "10.10.0.100"}]}})
    return store


def published(store: Store) -> list[dict[str, Any]]:
    Ingresses(store).reconcile(KEY)
    stored = store.get("networking.k8s.io/v1", "Ingress", "web", "default")
    return ((stored.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def test_an_ingress_of_the_class_gets_the_services_address(cluster):
    cluster.create(ingress_class())
    cluster.create(ingress(ingressClassName="nginx"))
    assert published(cluster) == [{"ip": "10.10.0.100"}]


def test_an_ingress_of_another_class_gets_nothing(cluster):
    cluster.create(ingress_class("other", "example.org/other"))
    cluster.create(ingress(ingressClassName="other"))
    assert published(cluster) == []


def test_an_ingress_without_a_class_takes_the_default(cluster):
    cluster.create(ingress_class(**{"ingressclass.kubernetes.io/is-default-class": "true"}))
    cluster.create(ingress())
    assert published(cluster) == [{"ip": "10.10.0.100"}]
