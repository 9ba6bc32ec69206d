"""An upgrade of Talos on the real control plane: real evictions, a real Job with its volume, and what deletes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab import life

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import TaskFailed
from fluobook.failures import present
from fluobook.notebook import stage_run
from fluobook.stages import upgrade_talos
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.upgrade_talos.state import Observation, observe
from tests.engines.waiting import until
from tests.stages.upgrade_talos import longhorn

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.notebook import StageRun

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(580)]

BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


def upgrade(context: Any) -> StageRun:
    return stage_run(upgrade_talos.STAGE, context, Gate(Approval.parse("all"), POLICIES["lab"], "fluodata"))


def behind(context: Any) -> list[str]:
    """The nodes that do not run the wanted image."""
    found: Observation = observe(context)
    return [node.name for node in context.platform.nodes if not found.is_current(node)]


def test_a_node_that_attaches_no_volume_stops_the_upgrade_and_the_next_run_goes_on(
    real_labs: Callable[..., Any],
) -> None:
    lab = real_labs("phase1")
    lab.bring_up(*BEFORE)
    context = lab.context
    major, minor, patch = context.platform.versions.talos.split(".")
    newer = {"versions": {"talos": f"{major}.{minor}.{int(patch) + 1}"}}
    context.platform = params.overlay(context.platform, newer)
    longhorn.deploy(context)
    life.inject(lab.lab, ["kube.attach-fails"])
    stage = upgrade(context)
    with pytest.raises(TaskFailed) as raised:
        stage.apply(stage.plan())
    assert "talos-worker-1 failed: exit code 1" in raised.value.message
    assert present(raised.value).failure.startswith("F160")
    assert behind(context) == ["talos-worker-2"]
    until(lambda: longhorn.left(context.kube()), lambda left: not left)
    life.inject(lab.lab, [])
    stage = upgrade(context)
    stage.apply(stage.plan())
    assert all(check.passed for check in stage.verify().checks)
    assert behind(context) == []
    until(lambda: longhorn.left(context.kube()), lambda left: not left)
    before = lab.mutating()
    assert stage.plan().actions == ()
    lab.bring_up("upgrade-talos")
    assert lab.mutating() == before
