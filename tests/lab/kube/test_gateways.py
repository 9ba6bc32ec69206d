"""The lab's Gateway controller: what it accepts, the Gateway's Service and address, and what a route lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.gateways import API, CONTROLLER, GROUP, KINDS, Gateways

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

CLASS, GATEWAY, ROUTE = ("GatewayClass/", "cilium"), ("Gateway/default", "lan"), ("HTTPRoute/default", "web")


@pytest.fixture
def cluster(store: Store, make_workload: Any) -> Store:
    for plural, kind in KINDS.items():
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        served = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
        names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
        scope = "Cluster" if kind == "GatewayClass" else "Namespaced"
        head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        spec = {"group": GROUP, "scope": scope, "names": names, "versions": [served]}
        store.create({**head, "metadata": {"name": f"{plural}.{GROUP}"}, "spec": spec})
    operator = store.create(make_workload("Deployment", "cilium-operator", "kube-system"))
    store.set_status(operator, {"conditions": [{"type": "Available", "status": "True"}]})
    create(store, "GatewayClass", "cilium", {"controllerName": CONTROLLER})
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    listeners.append(
        {"name": "web", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "web-tls"}]}}
    )
    create(store, "Gateway", "lan", {"gatewayClassName": "cilium", "listeners": listeners})
    rules = [{"backendRefs": [{"name": "web", "port": 80}]}]
    create(store, "HTTPRoute", "web", {"parentRefs": [{"name": "lan", "sectionName": "web"}], "rules": rules})
    return store


def create(store: Store, kind: str, name: str, spec: dict[str, Any], api_version: str = API) -> Any:
    metadata = {"name": name, **({} if kind == "GatewayClass" else {"namespace": "default"})}
    return store.create({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})


def reconciled(store: Store, key: tuple[str, str]) -> Any:
    Gateways(store).reconcile(key)
    kind, _, namespace = key[0].partition("/")
    return store.get(API, kind, key[1], namespace).get("status") or {}


def values(conditions: list[dict[str, Any]]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in conditions}


def test_only_a_class_of_cilium_is_accepted(cluster: Store) -> None:
    create(cluster, "GatewayClass", "other", {"controllerName": "example.org/other"})
    assert values(reconciled(cluster, CLASS)["conditions"]) == {"Accepted": "True"}
    assert reconciled(cluster, ("GatewayClass/", "other")) == {}


def test_a_gateway_has_the_address_of_its_service(cluster: Store) -> None:
    assert reconciled(cluster, GATEWAY)["addresses"] == []
    service = cluster.get("v1", "Service", "cilium-gateway-lan", "default")
    assert [port["port"] for port in service["spec"]["ports"]] == [80, 443]
    cluster.set_status(service, {"loadBalancer": {"ingress": [{"ip": "10.10.0.100"}]}})
    assert reconciled(cluster, GATEWAY)["addresses"] == [{"type": "IPAddress", "value": "10.10.0.100"}]


def test_a_listener_is_resolved_once_its_secret_exists(cluster: Store) -> None:
    def resolved() -> list[str]:
        listeners = reconciled(cluster, GATEWAY)["listeners"]
        return [values(listener["conditions"])["ResolvedRefs"] for listener in listeners]

    assert resolved() == ["True", "False"]
    metadata = {"name": "web-tls", "namespace": "default"}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata})
    assert resolved() == ["True", "True"]


def test_a_route_is_attached_to_the_listener_that_it_names(cluster: Store) -> None:
    listeners = reconciled(cluster, GATEWAY)["listeners"]
    assert [listener["attachedRoutes"] for listener in listeners] == [0, 1]


def test_a_route_is_accepted_and_its_references_resolve_once_the_service_exists(cluster: Store) -> None:
    def conditions() -> dict[str, str]:
        (parent,) = reconciled(cluster, ROUTE)["parents"]
        return values(parent["conditions"])

    assert conditions() == {"Accepted": "True", "ResolvedRefs": "False"}
    create(cluster, "Service", "web", {"ports": [{"port": 80}]}, "v1")
    assert conditions() == {"Accepted": "True", "ResolvedRefs": "True"}


def test_without_the_operator_nothing_is_accepted(cluster: Store) -> None:
    operator = cluster.get("apps/v1", "Deployment", "cilium-operator", "kube-system")
    cluster.set_status(operator, {"conditions": [{"type": "Available", "status": "False"}]})
    assert [reconciled(cluster, key) for key in (CLASS, GATEWAY, ROUTE)] == [{}, {}, {}]
