"""Server-side apply: who owns what, and what happens when two want the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.access import Write
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store


def settings(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s", "namespace": "default"}, "data": data}


def managers(obj: dict[str, Any]) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


def test_what_a_manager_no_longer_says_goes(store: Store) -> None:
    store.apply(settings(a="1", b="2"), manager="one")
    assert store.apply(settings(a="1"), manager="one")["data"] == {"a": "1"}


def test_what_another_manager_says_too_stays(store: Store) -> None:
    store.apply(settings(a="1", b="2"), manager="one")
    store.apply(settings(b="2"), manager="two")
    applied = store.apply(settings(a="1"), manager="one")
    assert applied["data"] == {"a": "1", "b": "2"}
    assert managers(applied) == {"one": {"f:data": {"f:a": {}}}, "two": {"f:data": {"f:b": {}}}}


def test_the_same_again_changes_nothing(store: Store) -> None:
    first = store.apply(settings(a="1"), manager="one")
    assert store.apply(settings(a="1"), manager="one") == first


def test_another_value_is_a_conflict_and_leaves_all_as_it_was(store: Store) -> None:
    before = store.apply(settings(a="1"), manager="one")
    with pytest.raises(ApiError) as refused:
        store.apply(settings(a="2"), manager="two")
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert refused.value.details["causes"][0]["reason"] == "FieldManagerConflict"
    assert store.get("v1", "ConfigMap", "s", "default") == before


def test_force_takes_the_field(store: Store) -> None:
    store.apply(settings(a="1"), manager="one")
    applied = store.apply(settings(a="2"), manager="two", force=True)
    assert list(managers(applied)) == ["two"]


def test_an_update_owns_what_it_changes(store: Store) -> None:
    applied = store.apply(settings(a="1", b="1"), manager="one")
    applied["data"]["a"] = "2"
    updated = store.update(applied, Write(manager="editor"))
    assert managers(updated) == {"one": {"f:data": {"f:b": {}}}, "editor": {"f:data": {"f:a": {}}}}
    with pytest.raises(ApiError, match='conflict with "editor" using v1'):
        store.apply(settings(a="3"), manager="one")


def test_list_items_are_owned_by_their_keys(store: Store, deployment: dict[str, Any]) -> None:
    store.apply(deployment, manager="one")
    sidecar = {"containers": [{"name": "sidecar", "image": "s"}]}
    other = {**deployment, "spec": {**deployment["spec"], "template": {"spec": sidecar}}}
    applied = store.apply(other, manager="two")
    assert [c["name"] for c in applied["spec"]["template"]["spec"]["containers"]] == ["main", "sidecar"]
    items = managers(applied)["two"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert list(items) == ['k:{"name":"sidecar"}']
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "new"
    applied = store.apply(deployment, manager="one")
    assert [c["image"] for c in applied["spec"]["template"]["spec"]["containers"]] == ["new", "s"]


def test_conflicts_in_lists_name_the_item(store: Store, deployment: dict[str, Any]) -> None:
    store.apply(deployment, manager="one")
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "new"
    with pytest.raises(ApiError, match=r'\.spec\.template\.spec\.containers\[name="main"\]\.image'):
        store.apply(deployment, manager="two")


def test_ports_of_a_service_are_told_apart_by_port_and_protocol(store: Store) -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns", "namespace": "default"}}
    service["spec"] = {"selector": {"a": "b"}, "ports": ports}
    store.apply(service, manager="one")
    assert [port["protocol"] for port in store.apply(service, manager="one")["spec"]["ports"]] == ["UDP", "TCP"]


def test_a_field_that_the_schema_does_not_know_is_refused(store: Store) -> None:
    with pytest.raises(ApiError, match=r"\.dat: field not declared in schema"):
        store.apply({**settings(), "dat": {}}, manager="one")


def test_status_belongs_to_who_writes_it(store: Store, deployment: dict[str, Any]) -> None:
    applied = store.apply(deployment, manager="one")
    applied["status"] = {"replicas": 1}
    updated = store.update(applied, Write(manager="controller", subresource="status"))
    entry = updated["metadata"]["managedFields"][-1]
    assert (entry["manager"], entry["subresource"], entry["fieldsV1"]) == (
        "controller",
        "status",
        {"f:status": {"f:replicas": {}}},
    )
    assert updated["metadata"]["generation"] == 1
