"""An upgrade in the lab: one node away at a time, interrupted anywhere, and images that fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import FluobookError, Refused, TaskFailed
from fluobook.failures import present
from fluobook.notebook import stage_run
from fluobook.stages import upgrade_talos
from fluobook.stages.core.plan import Approval, Gate
from tests.stages.conftest import interrupting
from tests.stages.upgrade_talos import longhorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lab

BEFORE = ("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
NOW = params.pins(params.repository_root())["talos"]
NEW = ".".join([*NOW.split(".")[:2], str(int(NOW.split(".")[2]) + 1)])
TO = f"platform.versions.talos={NEW}"
BACK = "platform.upgrade.rollback=true"


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs(phase="phase3")
    lab.bring_up(*BEFORE)
    longhorn.deploy(lab.context())
    return lab


def versions(lab: Any) -> dict[str, str]:
    return {node.hostname: node.image.version for node in lab.environment.machines.nodes.values()}


@pytest.fixture
def away(lab: Any) -> Iterator[list[int]]:
    """How many nodes were away after each stop of a kubelet."""
    side, gone, counts = lab.environment.kubernetes, set[str](), list[int]()
    up, down = side.on_node_up, side.on_node_down

    def on_node_down(node: Any) -> None:
        gone.add(node.vm.name)
        counts.append(len(gone))
        down(node)

    def on_node_up(node: Any, config: Any) -> None:
        gone.discard(node.vm.name)
        up(node, config)

    side.on_node_up, side.on_node_down = on_node_up, on_node_down
    yield counts
    side.on_node_up, side.on_node_down = up, down


def interrupted(lab: Any, after: int, *settings: str) -> None:
    """Run the upgrade, and fail at the action with that number, half of the time after it was done."""
    context, perform = lab.context(*(settings or (TO,))), interrupting(upgrade_talos.STAGE.perform, after)
    gate = Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name)
    stage = stage_run(replace(upgrade_talos.STAGE, perform=perform), context, gate)
    with pytest.raises(FluobookError):
        stage.apply(stage.plan())


def power_cycles(lab: Any) -> list[str]:
    return [request["path"] for request in lab.requests("proxmox") if request["path"].endswith("/status/reboot")]


def no_volume_is_attached(lab: Any) -> None:
    """The first worker attaches no volume under the new image: the others stay as they are, and nothing is left."""
    lab.inject("kube.attach-fails")
    stage = lab.stage("upgrade-talos", TO, "platform.deadlines.canary=4")
    with pytest.raises(TaskFailed) as raised:
        stage.apply(stage.plan())
    shown = present(raised.value)
    assert "the canary volume on talos-worker-1 failed" in shown.message
    assert "iscsiadm" in shown.message
    assert shown.failure.startswith("F160")
    assert shown.remedy
    upgraded = {f"talos-cp-{number}" for number in (1, 2, 3)} | {"talos-worker-1"}
    assert {name for name, version in versions(lab).items() if version == f"v{NEW}"} == upgraded
    lab.until(lambda: longhorn.left(lab.context().kube()) == [])
    lab.inject()


def test_all_nodes_are_upgraded_and_one_is_away_at_a_time(lab: Any, away: list[int]) -> None:
    """An image that does not boot, and an installer that fails, stop at their node; the next run goes on."""
    lab.add_fault("talos.boot-fails-once")
    stage = lab.stage("upgrade-talos", TO)
    with pytest.raises(TaskFailed) as fallen:
        stage.apply(stage.plan())
    assert f"runs v{NOW} after its restart; it should run v{NEW}" in fallen.value.message
    assert set(versions(lab).values()) == {f"v{NOW}"}
    lab.add_fault("talos.upgrade-fails-once")
    stage = lab.stage("upgrade-talos", TO)
    with pytest.raises(TaskFailed) as failed:
        stage.apply(stage.plan())
    assert "exit code 1; failed to install bootloader" in failed.value.message
    for after in (8, 11):
        interrupted(lab, after)
    no_volume_is_attached(lab)
    for after in (1, 6):
        interrupted(lab, after)
    stage = lab.stage("upgrade-talos", TO)
    stage.apply(stage.plan())
    stage.verify()
    assert set(versions(lab).values()) == {f"v{NEW}"}
    kubelets = {node["status"]["nodeInfo"]["osImage"] for node in lab.context().kube().list("v1", "Node")}
    assert kubelets == {f"Talos (v{NEW})"}
    assert max(away) == 1
    assert len(power_cycles(lab)) == 1
    lab.until(lambda: longhorn.left(lab.context().kube()) == [])
    lab.mark()
    again = lab.stage("upgrade-talos", TO)
    plan = again.plan()
    again.apply(plan)
    again.verify()
    assert plan.actions == ()
    assert lab.requests(mutating=True) == []


def test_all_nodes_go_back_one_after_the_other_and_the_next_run_has_nothing_to_do(lab: Any, away: list[int]) -> None:
    """The params have the version from before the upgrade, and the runbook is told that this is meant."""
    with pytest.raises(Refused, match=f"runs talos v{NEW}; versions.talos is {NOW}, which is older"):
        lab.stage("upgrade-talos").plan()
    lab.mark()
    for after in (3, 5, 9, 12):
        interrupted(lab, after, BACK)
    stage = lab.stage("upgrade-talos", BACK)
    stage.apply(stage.plan())
    stage.verify()
    assert set(versions(lab).values()) == {f"v{NOW}"}
    assert max(away) == 1
    assert power_cycles(lab) == []
    assert len([r for r in lab.requests("talos") if r["path"].endswith("/Rollback")]) == len(versions(lab))
    lab.mark()
    for settings in ((BACK,), ()):
        again = lab.stage("upgrade-talos", *settings)
        plan = again.plan()
        again.apply(plan)
        again.verify()
        assert plan.actions == ()
    assert lab.requests(mutating=True) == []


def test_a_node_without_an_image_before_stays_in_service(labs: Callable[..., Any]) -> None:
    lab = labs()
    lab.bring_up(*BEFORE[1:])
    for node in lab.environment.machines.nodes.values():
        lab.background.call(node.replace_image, f"v{NEW}", "")
    stage = lab.stage("upgrade-talos", BACK)
    with pytest.raises(TaskFailed) as raised:
        stage.apply(stage.plan())
    assert "cannot go back: cannot rollback to" in raised.value.message
    assert set(versions(lab).values()) == {f"v{NEW}"}
    nodes = lab.context().kube().list("v1", "Node")
    assert not [node for node in nodes if node["spec"].get("unschedulable")]


def test_a_node_that_its_firmware_does_not_start_stops_the_upgrade(labs: Callable[..., Any]) -> None:
    """The control plane is the only one, so the next run waits for its API; the first workers are not touched."""
    lab = labs()
    lab.bring_up(*BEFORE[1:])
    lab.add_fault("talos.cold-boot-fails-once")
    stage = lab.stage("upgrade-talos", TO, "platform.deadlines.upgrade=15")
    with pytest.raises(TaskFailed) as raised:
        stage.apply(stage.plan())
    assert "talos-cp-1 does not come back after it was switched off and on" in raised.value.message
    assert set(versions(lab).values()) == {f"v{NOW}"} | {f"v{NEW}"}
    node = lab.chosen.platform.control_planes[0]
    machine = lab.context().proxmox("laptop")
    machine.wait(machine.stop(node.host, node.vmid), deadline=60)  # a person, on the console
    machine.start(node.host, node.vmid)
    stage = lab.stage("upgrade-talos", TO)
    plan = stage.plan()
    assert [action.id for action in plan.actions[:2]] == ["power-cycle talos-cp-1", "uncordon talos-cp-1"]
    stage.apply(plan)
    stage.verify()
