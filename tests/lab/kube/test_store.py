"""The store's rules: names, versions, generations, finalizers, immutable fields, admission."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.access import User, Write
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


def namespace(name: str, **labels: str) -> dict[str, Any]:
    labels = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i:1"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_two_stores_of_one_seed_give_the_same_names_and_uids() -> None:
    def made(seed: int) -> list[tuple[str, str]]:
        store = Store(seed)
        objs = [{**pod(""), "metadata": {"generateName": "p-", "namespace": "default"}} for _ in range(3)]
        return [(o["metadata"]["name"], o["metadata"]["uid"]) for o in map(store.create, objs)]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(set(made(1))) == 3


def test_an_object_that_comes_again_has_another_uid(store: Store) -> None:
    first = store.create(pod("p"))["metadata"]["uid"]
    store.delete("v1", "Pod", "p", "default")
    assert store.create(pod("p"))["metadata"]["uid"] != first


def test_generation_counts_changes_of_the_spec_alone(store: Store, deployment: dict[str, Any]) -> None:
    store.create(deployment)
    body = {"metadata": {"labels": {"a": "b"}}}
    assert store.patch("apps/v1", "Deployment", "web", "default", body=body)["metadata"]["generation"] == 1
    body = {"spec": {"replicas": 5}}
    assert store.patch("apps/v1", "Deployment", "web", "default", body=body)["metadata"]["generation"] == 2


def test_results_are_copies(store: Store) -> None:
    store.create(pod("p"))
    store.get("v1", "Pod", "p", "default")["spec"].clear()
    assert store.get("v1", "Pod", "p", "default")["spec"]


def test_clients_cannot_set_a_status_on_creation(store: Store, deployment: dict[str, Any]) -> None:
    assert "status" not in store.create({**deployment, "status": {"readyReplicas": 3}})


def test_finalizers_hold_an_object_back(store: Store) -> None:
    store.create({**pod("p"), "metadata": {"name": "p", "namespace": "default", "finalizers": ["example.org/hold"]}})
    assert store.delete("v1", "Pod", "p", "default")["metadata"]["deletionTimestamp"]
    assert store.find("v1", "Pod", "p", "default")
    store.patch("v1", "Pod", "p", "default", body={"metadata": {"finalizers": None}})
    assert store.find("v1", "Pod", "p", "default") is None


def test_a_deletion_can_be_for_one_uid_only(store: Store) -> None:
    store.create(pod("p"))
    with pytest.raises(ApiError, match="the UID in the precondition"):
        store.delete("v1", "Pod", "p", "default", options={"preconditions": {"uid": "other"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apiVersion": "v2"}, "could not find the requested resource"),
        ({"metadata": {"name": "Not_Good", "namespace": "default"}}, "must match"),
        ({"metadata": {"namespace": "default"}}, "name or generateName is required"),
        ({"metadata": {"name": "p", "namespace": "nowhere"}}, 'namespaces "nowhere" not found'),
        ({"spec": {"containers": [{"image": "i"}]}}, "spec.containers[0].name: Required value"),
        ({"spec": {"containers": "many"}}, "Pod cannot be decoded"),
        ({"spec": {"containers": [{"name": "c"}], "dnsPolicy": "Never"}}, 'Unsupported value: "Never"'),
    ],
)
def test_what_is_refused_and_why(store: Store, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        store.create({**pod("p"), **change})
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath volumes (v)"),
        (
            {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
            "privileged (container c)",
        ),
        (
            {"containers": [{"name": "c", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_NICE"]}}}]},
            "non-default capabilities (container c: SYS_NICE)",
        ),
        ({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}]}, "hostPort"),
    ],
)
def test_pod_security_enforces_baseline(store: Store, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        store.create(pod("p", **spec))
    assert refused.value.message.startswith('pods "p" is forbidden: violates PodSecurity "baseline:latest": ')
    assert message in refused.value.message
    store.create(pod("p", "kube-system", **spec))
    store.create(namespace("free", enforce="privileged"))
    store.create(pod("p", "free", **spec))


def test_workloads_are_warned_of_what_restricted_would_refuse(store: Store, deployment: dict[str, Any]) -> None:
    write = Write()
    store.create(deployment, write)
    assert write.warnings[0].startswith('would violate PodSecurity "restricted:latest": allowPrivilegeEscalation')


@pytest.mark.parametrize("path", ["spec.selector.matchLabels", "spec.template.metadata.labels"])
def test_only_the_selector_of_a_deployment_is_fixed(store: Store, deployment: dict[str, Any], path: str) -> None:
    store.create(deployment)
    body: Any = {"tier": "front"}
    for key in reversed(path.split(".")):
        body = {key: body}
    if "selector" in path:
        with pytest.raises(ApiError, match="field is immutable"):
            store.patch("apps/v1", "Deployment", "web", "default", body=body)
    else:
        assert store.patch("apps/v1", "Deployment", "web", "default", body=body)["metadata"]["generation"] == 2


def test_a_kubelet_may_change_its_own_node_alone(store: Store) -> None:
    for name in ("a", "b"):
        store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    kubelet = Write(user=User("system:node:a", frozenset({"system:nodes"})))
    labelled = {"metadata": {"labels": {"rack": "1"}}}
    store.patch("v1", "Node", "a", body=labelled, write=kubelet)
    with pytest.raises(ApiError, match='node "a" is not allowed to modify node "b"'):
        store.patch("v1", "Node", "b", body=labelled, write=kubelet)
    role = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}
    with pytest.raises(ApiError, match="is not allowed to modify labels"):
        store.patch("v1", "Node", "a", body=role, write=kubelet)
    with pytest.raises(ApiError, match="taints"):
        store.patch("v1", "Node", "a", body={"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, write=kubelet)


def service(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}


def test_services_get_addresses_of_their_own(store: Store) -> None:
    made = [store.create(service(f"s{number}", type="NodePort"))["spec"] for number in range(50)]
    assert len({spec["clusterIP"] for spec in made}) == 50
    assert len({spec["ports"][0]["nodePort"] for spec in made}) == 50
    taken = made[0]["clusterIP"]
    with pytest.raises(ApiError, match="provided IP is already allocated"):
        store.create(service("other", clusterIP=taken))
    assert store.update({**service("s0", type="NodePort")})["spec"]["clusterIP"] == taken
    assert store.create(service("headless", clusterIP="None"))["spec"]["clusterIP"] == "None"


def test_old_and_new_versions_of_a_kind_show_the_same_objects(store: Store) -> None:
    versions = [
        {"name": name, "served": True, "storage": name == "v2", "schema": {"openAPIV3Schema": {"type": "object"}}}
        for name in ("v2", "v2alpha1")
    ]
    names = {"kind": "Pool", "plural": "pools"}
    spec = {"group": "example.org", "scope": "Cluster", "names": names, "versions": versions}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    store.apply({**definition, "metadata": {"name": "pools.example.org"}, "spec": spec}, manager="m")
    store.create({"apiVersion": "example.org/v2alpha1", "kind": "Pool", "metadata": {"name": "a"}})
    assert store.get("example.org/v2", "Pool", "a")["apiVersion"] == "example.org/v2"
    store.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "pools.example.org")
    assert store.find("example.org/v2", "Pool", "a") is None
    with pytest.raises(ApiError):
        store.watch("example.org/v2", "Pool")


def test_what_the_schema_of_a_custom_kind_requires_must_be_there_and_metadata_and_empty_texts_are(store: Store) -> None:
    group = {"type": "object", "required": ["group"], "properties": {"group": {"type": "string"}}}
    schema = {"type": "object", "required": ["metadata", "spec"], "properties": {"spec": group}}
    schema["properties"] |= {"metadata": {"type": "object"}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    spec = {
        "group": "example.org",
        "scope": "Cluster",
        "names": {"kind": "Pool", "plural": "pools"},
        "versions": versions,
    }
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    store.apply({**definition, "metadata": {"name": "pools.example.org"}, "spec": spec}, manager="m")
    pool = {"apiVersion": "example.org/v1", "kind": "Pool", "metadata": {"name": "a"}}
    assert store.create({**pool, "spec": {"group": ""}})["metadata"]["name"] == "a"  # as in an AppProject
    for lacking, field in (({}, "spec"), ({"spec": {}}, r"spec\.group")):
        with pytest.raises(ApiError, match=f"{field}: Required value"):
            store.create({**pool, "metadata": {"name": "b"}, **lacking})


def test_watches_tell_what_happens_in_their_namespace(store: Store) -> None:
    async def watched(change: Callable[[], None], count: int) -> list[tuple[str, str]]:
        watch = store.watch("v1", "Pod", "default")
        change()
        events = [await asyncio.wait_for(anext(watch), 5) for _ in range(count)]
        watch.close()
        return [(event.type, event.object["metadata"]["name"]) for event in events]

    def change() -> None:
        store.create(pod("p"))
        store.create(pod("elsewhere", "kube-system"))
        store.patch("v1", "Pod", "p", "default", body={"metadata": {"labels": {"a": "b"}}})
        store.delete("v1", "Pod", "p", "default")

    assert asyncio.run(watched(change, 3)) == [("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]
