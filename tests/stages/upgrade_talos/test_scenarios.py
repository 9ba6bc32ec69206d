"""What goes wrong between two nodes of an upgrade: it stops there, says why, and goes on once that is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.longhorn import API, NAMESPACE

from fluobook.errors import DeadlineExceeded, Refused
from fluobook.failures import present
from tests.stages.upgrade_talos import longhorn
from tests.stages.upgrade_talos.test_upgrade import BEFORE, NEW, NOW, TO, interrupted, versions

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    """Three control planes and three workers; a database without its operator, with a volume of two replicas."""
    lab = shared_labs(phase="phase3")
    lab.bring_up(*BEFORE)
    context = lab.context()
    longhorn.deploy(context)
    kube = context.kube()
    kube.create(longhorn.workload())
    context.wait_until("nodes_ready", "the volume to be healthy", lambda: healthy(kube) or None)
    return lab


def healthy(kube: Any) -> bool:
    volumes = kube.list(API, "Volume", NAMESPACE)
    return bool(volumes) and all(volume.get("status", {}).get("robustness") == "healthy" for volume in volumes)


def cordoned(lab: Any) -> list[str]:
    nodes = lab.context().kube().list("v1", "Node")
    return [node["metadata"]["name"] for node in nodes if node["spec"].get("unschedulable")]


def failing(lab: Any, *settings: str) -> str:
    """Why the upgrade stops; nothing was upgraded by it, and no volume of a canary is left."""
    before = versions(lab)
    stage = lab.stage("upgrade-talos", TO, *settings)
    with pytest.raises(DeadlineExceeded) as raised:
        stage.apply(stage.plan())
    assert versions(lab) == before
    return present(raised.value).text()


def test_a_learner_that_is_never_promoted_keeps_the_first_node_in_service(lab: Any) -> None:
    lab.inject("talos.etcd-learner")
    assert "no member of etcd is a learner" in failing(lab, "platform.deadlines.gate=3")
    assert cordoned(lab) == []
    lab.inject()


def budget(**spec: Any) -> dict[str, Any]:
    head = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "data", "namespace": "default"},
    }
    return {**head, "spec": {"selector": {"matchLabels": {"app": "data"}}, **spec}}


def test_a_drain_that_can_never_end_is_refused_before_anything_is_touched(lab: Any) -> None:
    kube = lab.context().kube()
    kube.create(budget(minAvailable=1))
    lab.mark()
    with pytest.raises(Refused, match="pod default/data-0: the disruption budget data never allows its eviction"):
        lab.stage("upgrade-talos", TO).plan()
    assert lab.requests(mutating=True) == []
    kube.delete("policy/v1", "PodDisruptionBudget", "data", "default")


def test_a_volume_that_is_degraded_between_two_nodes_keeps_the_next_one_in_service(lab: Any) -> None:
    interrupted(lab, 12)
    before = versions(lab)
    assert sorted(before.values()) == [f"v{NOW}"] * 5 + [f"v{NEW}"]
    kube = lab.context().kube()
    replica = kube.list(API, "Replica", NAMESPACE)[0]["metadata"]["name"]
    kube.patch(API, "Replica", replica, NAMESPACE, body={"spec": {"failedAt": "2026-11-29T12:00:00Z"}})
    message = failing(lab, "platform.deadlines.gate=4")
    assert "every Longhorn volume is healthy" in message
    assert "robustness is degraded" in message
    assert cordoned(lab) == []
    kube.patch(API, "Replica", replica, NAMESPACE, body={"spec": {"failedAt": None}})


@pytest.mark.long
def test_a_pod_that_does_not_go_leaves_its_node_cordoned_and_all_others_in_service(lab: Any) -> None:
    """A finalizer that nobody removes holds it: that is seen only once it is evicted."""
    kube = lab.context().kube()
    kube.patch("v1", "Pod", "data-0", "default", body={"metadata": {"finalizers": ["example.com/held"]}})
    node = kube.get("v1", "Pod", "data-0", "default")["spec"]["nodeName"]
    stage = lab.stage("upgrade-talos", TO, "platform.deadlines.drain=31")
    with pytest.raises(DeadlineExceeded) as raised:
        stage.apply(stage.plan())
    assert f"the pods of {node} to be evicted" in raised.value.message
    assert "default/data-0" in present(raised.value).text()
    assert cordoned(lab) == [node]
    assert versions(lab)[node] == f"v{NOW}"
    kube.patch("v1", "Pod", "data-0", "default", body={"metadata": {"finalizers": None}})


def test_the_labs_own_log_has_one_node_away_at_most_a_quorum_and_a_healthy_copy_of_each_volume(lab: Any) -> None:
    """Over all tests of this file, interruptions and failures included, until the upgrade is at its end."""
    stage = lab.stage("upgrade-talos", TO)
    stage.apply(stage.plan())
    stage.verify()
    assert set(versions(lab).values()) == {f"v{NEW}"}
    moments, volumes = lab.environment.machines.moments, lab.environment.kubernetes.volumes
    began = next(moment.time for moment in moments if not moment.up)
    upgrade = [moment for moment in moments if moment.time >= began]
    assert len({moment.node for moment in upgrade}) == len(versions(lab))
    assert [moment for moment in upgrade if len(moment.away) > 1 or not moment.quorum] == []
    copies = [healthy for time, _, healthy, wanted in volumes if time >= began and wanted > 1]
    assert 1 in copies  # the replicas did come and go
    assert 0 not in copies
