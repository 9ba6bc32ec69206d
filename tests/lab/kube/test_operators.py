"""What the lab's operators make of a custom resource: kind and names of the workload, its claims, and the status."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.operators import OPERATED, Operators

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

STORAGE = {"storageClass": "longhorn", "size": "2Gi"}
VM_STORAGE = {"storageClassName": "longhorn", "resources": {"requests": {"storage": "5Gi"}}}
SCYLLA = {"storage": {"storageClassName": "longhorn", "capacity": "20Gi"}, "members": 1, "name": "a"}
RACKS = {"datacenter": {"name": "dc1", "racks": [SCYLLA, {**SCYLLA, "name": "b", "members": 2}]}}
CASES = [
    ("VMSingle", {"storage": VM_STORAGE}, {"Deployment vmsingle-db"}, {"vmsingle-db"}),
    ("VMSingle", {}, {"Deployment vmsingle-db"}, set()),
    ("VMAgent", {}, {"Deployment vmagent-db"}, set()),
    ("VMAlert", {}, {"Deployment vmalert-db"}, set()),
    ("VMAlertmanager", {}, {"StatefulSet vmalertmanager-db"}, set()),
    (
        "VMAlertmanager",
        {"storage": {"volumeClaimTemplate": {"spec": VM_STORAGE}}},
        {"StatefulSet vmalertmanager-db"},
        {"vmalertmanager-db-db"},
    ),
    ("Cluster", {"instances": 2, "storage": STORAGE}, {"Pod db-1", "Pod db-2"}, {"db-1", "db-2"}),
    (
        "Cluster",
        {"instances": 1, "storage": STORAGE, "walStorage": STORAGE},
        {"Pod db-1"},
        {"db-1", "db-1-wal"},
    ),
    ("RabbitmqCluster", {"replicas": 3, "persistence": {}}, {"StatefulSet db-server"}, {"persistence"}),
    ("ScyllaCluster", {"datacenter": {"name": "dc1", "racks": [SCYLLA]}}, {"StatefulSet db-dc1-a"}, {"data"}),
    ("ScyllaCluster", RACKS, {"StatefulSet db-dc1-a", "StatefulSet db-dc1-b"}, {"data"}),
]
VERSIONS = {"Cluster": "postgresql.cnpg.io/v1", "RabbitmqCluster": "rabbitmq.com/v1beta1"}
VERSIONS |= {"ScyllaCluster": "scylla.scylladb.com/v1"}
OPERATORS = ("victoria-metrics-operator", "cloudnative-pg", "rabbitmq-cluster-operator", "scylla-operator")


class Clock:
    """Every question for the time finds ten seconds gone."""

    def __init__(self) -> None:
        self._times = count(0, 10)

    def now(self) -> float:
        return float(next(self._times))


@pytest.fixture
def cluster(store: Store, make_workload: Any) -> Store:
    available = {"conditions": [{"type": "Available", "status": "True"}]}
    for name in OPERATORS:
        store.set_status(store.create(make_workload("Deployment", name)), available)
    return store


def operate(store: Store, kind: str, spec: dict[str, Any]) -> Any:
    """Create a resource of the kind, called db, and let its operator work on it twice."""
    api_version = VERSIONS.get(kind, "operator.victoriametrics.com/v1beta1")
    group, plural = api_version.partition("/")[0], f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": api_version.partition("/")[2], "served": True, "storage": True, "schema": schema}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    definition = {"group": group, "scope": "Namespaced", "names": names}
    definition["versions"] = [{**served, "subresources": {"status": {}}}]
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    store.create({**head, "metadata": {"name": f"{plural}.{group}"}, "spec": definition})
    metadata = {"name": "db", "namespace": "default"}
    store.create({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
    operators = Operators(store, Clock(), 1)  # type: ignore[arg-type]
    for _ in range(3):
        operators.reconcile((f"{plural}.{group}/default", "db"))
    return store.get(api_version, kind, "db", "default")


@pytest.mark.parametrize(("kind", "spec", "workloads", "claims"), CASES)
def test_workloads_and_claims_have_kinds_and_names_of_the_operators_own(
    cluster: Store, kind: str, spec: dict[str, Any], workloads: set[str], claims: set[str]
) -> None:
    operate(cluster, kind, spec)
    made, wanted = set(), set()
    for api_version, made_kind in (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("v1", "Pod")):
        for obj in cluster.view(api_version, made_kind):
            owners = {owner["kind"] for owner in obj["metadata"].get("ownerReferences") or ()}
            if owners == {kind}:
                made.add(f"{made_kind} {obj['metadata']['name']}")
                templates = obj["spec"].get("volumeClaimTemplates") or ()
                wanted |= {template["metadata"]["name"] for template in templates}
    wanted |= {claim["metadata"]["name"] for claim in cluster.view("v1", "PersistentVolumeClaim")}
    assert (made, wanted) == (workloads, claims)


def test_pods_without_a_workload_are_counted_in_the_status_when_they_are_ready(cluster: Store) -> None:
    spec = {"instances": 2, "storage": STORAGE}
    assert operate(cluster, "Cluster", spec)["status"]["readyInstances"] == 0
    pod = cluster.get("v1", "Pod", "db-1", "default")
    cluster.set_status(pod, {"conditions": [{"type": "Ready", "status": "True"}]})
    operators = Operators(cluster, Clock(), 1)  # type: ignore[arg-type]
    (key,) = operators.sources["", "pods"](pod)
    for _ in range(2):
        operators.reconcile(key)
    status = cluster.get("postgresql.cnpg.io/v1", "Cluster", "db", "default")["status"]
    assert (status["readyInstances"], status["phase"]) == (1, "Waiting for the instances to become active")


def test_each_rack_has_its_members_and_one_service_is_in_front_of_all(cluster: Store) -> None:
    assert operate(cluster, "ScyllaCluster", RACKS)["status"]["members"] == 3
    racks = {obj["metadata"]["name"]: obj for obj in cluster.view("apps/v1", "StatefulSet")}
    assert {name: obj["spec"]["replicas"] for name, obj in racks.items()} == {"db-dc1-a": 1, "db-dc1-b": 2}
    selector = cluster.get("v1", "Service", "db-client", "default")["spec"]["selector"]
    pods = [obj["spec"]["template"]["metadata"]["labels"] for obj in racks.values()]
    assert {labels["scylla/rack"] for labels in pods} == {"a", "b"}
    assert all(selector.items() <= labels.items() for labels in pods)


def test_the_claims_of_every_kind_name_their_class_and_size() -> None:
    claims = [claim for entry in OPERATED.values() for claim in entry.get("instances", {}).get("claims", {}).values()]
    assert claims
    assert all({"class", "size"} <= set(claim) for claim in claims)


@pytest.mark.parametrize(("spec", "expected"), [({}, ["db-primary"]), ({"enablePDB": False}, [])])
def test_a_postgresql_cluster_has_a_budget_unless_it_is_switched_off(
    cluster: Store, spec: dict[str, Any], expected: list[str]
) -> None:
    operate(cluster, "Cluster", {"instances": 1, "storage": STORAGE, **spec})
    assert [budget["metadata"]["name"] for budget in cluster.list("policy/v1", "PodDisruptionBudget")] == expected


def test_a_broker_has_the_secret_of_its_first_user(cluster: Store) -> None:
    operate(cluster, "RabbitmqCluster", {"replicas": 1, "persistence": {}})
    secret = cluster.get("v1", "Secret", "db-default-user", "default")
    assert {"username", "password"} <= secret["data"].keys()
    assert secret["metadata"]["ownerReferences"][0]["name"] == "db"
