"""Drains: what would keep one from ending is named with the way out, and what may wait is not."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.stages.day_two.drain import Load, blockers, cordoned_by, has_to_go, still_to_go

NODE = "wk-1"


def pod(name: str = "web", *, node: str = NODE, owner: str = "ReplicaSet", **spec: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "shop",
        "labels": {"app": "web"},
        "ownerReferences": [{"kind": owner, "controller": True}],
    }
    return {"metadata": metadata, "spec": {"nodeName": node, **spec}, "status": {"phase": "Running"}}


def budget(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


def postgres(*, instances: int) -> dict[str, Any]:
    primary = pod("pg-1")
    primary["metadata"]["labels"] = {"cnpg.io/cluster": "pg", "cnpg.io/instanceRole": "primary"}
    own = budget("pg-primary", minAvailable=1)
    own["spec"]["selector"] = {"matchLabels": {"cnpg.io/cluster": "pg", "cnpg.io/instanceRole": "primary"}}
    database = {"metadata": {"name": "pg", "namespace": "shop"}, "spec": {"instances": instances}}
    return {"pods": (primary,), "budgets": (own,), "databases": (database,)}


def volume(*homes: str) -> dict[str, Any]:
    replicas = tuple({"spec": {"volumeName": "pvc-1", "nodeID": home}} for home in homes)
    return {"volumes": ({"metadata": {"name": "pvc-1"}},), "replicas": replicas}


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing runs": ({}, []),
    "a pod without a budget": ({"pods": (pod(),)}, []),
    "another one stays": ({"pods": (pod(), pod("web-2", node="wk-2")), "budgets": (budget(minAvailable=1),)}, []),
    "all must stay": (
        {"pods": (pod(), pod("web-2", node="wk-2")), "budgets": (budget(minAvailable=2),)},
        ["pod shop/web: the disruption budget web never allows its eviction; add a replica"],
    ),
    "all must stay, in percent": (
        {"pods": (pod(),), "budgets": (budget(minAvailable="100%"),)},
        ["pod shop/web: the disruption budget web never allows its eviction"],
    ),
    "half may go": ({"pods": (pod(), pod("b", node="wk-2")), "budgets": (budget(minAvailable="50%"),)}, []),
    "none may go": (
        {"pods": (pod(),), "budgets": (budget(maxUnavailable=0),)},
        ["pod shop/web: the disruption budget web never allows its eviction"],
    ),
    "one may go": ({"pods": (pod(),), "budgets": (budget(maxUnavailable=1),)}, []),
    "two budgets": (
        {"pods": (pod(),), "budgets": (budget(maxUnavailable=1), budget("other", maxUnavailable=1))},
        ["pod shop/web has 2 disruption budgets, which the API refuses: remove one"],
    ),
    "a budget of another namespace": (
        {"pods": (pod(),), "budgets": ({**budget(minAvailable=1), "metadata": {"name": "web", "namespace": "b"}},)},
        [],
    ),
    "only a pod of another node": ({"pods": (pod(node="wk-2"),), "budgets": (budget(minAvailable=1),)}, []),
    "a DaemonSet": ({"pods": (pod(owner="DaemonSet"),), "budgets": (budget(minAvailable=1),)}, []),
    "one instance of PostgreSQL": (postgres(instances=1), ["set instances to 2 or more, or enablePDB to false"]),
    "PostgreSQL switches over": (postgres(instances=2), []),
    "a long grace period": (
        {"pods": (pod(terminationGracePeriodSeconds=604800),)},
        ["pod shop/web may take 604800 s to end (terminationGracePeriodSeconds), and a drain has 600 s"],
    ),
    "a pod that nothing makes again": (
        {"pods": ({**pod(), "metadata": {"name": "debug", "namespace": "shop", "ownerReferences": [{"kind": "X"}]}},)},
        ["pod shop/debug has no controller that would make it again elsewhere"],
    ),
    "the last replica": (
        volume(NODE),
        ["Longhorn's node-drain-policy is block-if-contains-last-replica, and this node has the only replica of pvc-1"],
    ),
    "another replica": (volume(NODE, "wk-2"), []),
    "a replica elsewhere": (volume("wk-2"), []),
    "Longhorn lets it go": ({**volume(NODE), "policy": "allow-if-replica-is-stopped"}, []),
}


@pytest.mark.parametrize("name", CASES)
def test_what_never_ends_is_named_with_the_way_out(name: str) -> None:
    load, expected = CASES[name]
    found = list(blockers(NODE, Load(**load), seconds=600))
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


def test_many_volumes_are_one_line() -> None:
    volumes = tuple({"metadata": {"name": f"pvc-{n}"}} for n in range(9))
    replicas = tuple({"spec": {"volumeName": f"pvc-{n}", "nodeID": NODE}} for n in range(9))
    (line,) = blockers(NODE, Load(volumes=volumes, replicas=replicas), seconds=600)
    assert "pvc-0, pvc-1, pvc-2 and 6 more" in line


def test_static_and_finished_pods_stay() -> None:
    static = pod(owner="Node")
    mirror = pod()
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "1"}
    done = {**pod(), "status": {"phase": "Succeeded"}}
    assert [has_to_go(each) for each in (pod(), static, mirror, done)] == [True, False, False, False]


def test_a_pod_that_comes_again_as_it_tolerates_the_cordon_is_left() -> None:
    """As Cilium's operator does, which kubectl evicts once as well."""
    everywhere = {"tolerations": [{"operator": "Exists"}]}
    pods = [pod("web"), pod("operator", **everywhere), pod("late"), pod("again", **everywhere)]
    for each in pods:
        each["metadata"]["uid"] = each["metadata"]["name"]
    names = [each["metadata"]["name"] for each in still_to_go(NODE, pods[:2], set())]
    assert names == ["web", "operator"]
    assert [each["metadata"]["name"] for each in still_to_go(NODE, pods, set(names))] == ["web", "operator", "late"]
    assert still_to_go(NODE, pods[3:], set(names)) == []


def test_a_node_that_somebody_else_cordoned_is_not_ours() -> None:
    marked = {"metadata": {"annotations": {"fluobook/cordoned-by": "upgrade-talos"}}, "spec": {"unschedulable": True}}
    assert cordoned_by(marked) == "upgrade-talos"
    assert cordoned_by({"metadata": {}, "spec": {"unschedulable": True}}) == ""
    assert cordoned_by({**marked, "spec": {}}) == ""
