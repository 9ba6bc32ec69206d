"""The plan of an upgrade: its order, what it refuses, and how it goes on after an interruption."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.errors import Refused
from fluobook.machine.schematic import Image
from fluobook.stages.core.canary import Longhorn
from fluobook.stages.core.cluster import Missing
from fluobook.stages.upgrade_talos.plan import Observation, Running, plan

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Platform

OLD, NEW, SCHEMATIC = "v1.13.9", "v1.13.10", "ab" * 32
IMAGE = Image("1.13.10", SCHEMATIC)


@pytest.fixture(scope="module")
def phase3(root: Path) -> Platform:
    return params.load("phase3", root=root).platform


def observed(platform: Platform, *, leader: str = "talos-cp-2", **changes: Any) -> Observation:
    running = {n.name: Running(OLD, SCHEMATIC, n.name == leader) for n in platform.nodes}
    running |= changes.pop("running", {})
    attaches = Longhorn(frozenset(n.name for n in platform.workers), "longhorn", "image")
    given = {"running": running, "offered": frozenset({"1.13.10"}), "image": IMAGE, "longhorn": attaches, **changes}
    return Observation(**given)


def test_images_come_first_then_control_planes_with_the_leader_last_then_workers(phase3: Platform) -> None:
    actions = plan(phase3, observed(phase3)).actions
    pulls = [action for action in actions if action.verb == "pull"]
    assert len(pulls) == len(phase3.nodes)
    assert not any(action.needs for action in pulls)
    upgrades = [action.data["node"] for action in actions if action.verb == "upgrade"]
    assert upgrades == ["talos-cp-1", "talos-cp-3", "talos-cp-2", *(n.name for n in phase3.nodes if n.role == "worker")]


def test_every_action_on_a_node_waits_for_the_one_before(phase3: Platform) -> None:
    """So at most one node is away at any time, whatever runs in parallel."""
    actions = plan(phase3, observed(phase3)).actions
    chain = [action for action in actions if action.verb != "pull"]
    assert [action.verb for action in chain[:4]] == ["check", "drain", "upgrade", "uncordon"]
    assert chain[-1].id == "gate at the end"
    for before, after in itertools.pairwise(chain):
        assert before.id in after.needs
    assert {f"pull {node.name}" for node in phase3.nodes} <= set(chain[0].needs)


def test_a_volume_is_attached_to_each_node_with_longhorn_before_it_is_uncordoned(phase3: Platform) -> None:
    actions = plan(phase3, observed(phase3)).actions
    attached = [action for action in actions if action.verb == "attach"]
    assert [action.data["node"] for action in attached] == [node.name for node in phase3.workers]
    for action in attached:
        name = action.data["node"]
        assert action.needs == (f"upgrade {name}",)
        assert next(a for a in actions if a.id == f"uncordon {name}").needs == (action.id,)


def test_without_longhorn_no_volume_is_attached_and_the_plan_says_so(phase3: Platform) -> None:
    bare = plan(phase3, observed(phase3, longhorn=Longhorn()))
    assert not [action for action in bare.actions if action.verb == "attach"]
    assert bare.notes[-1] == "no canary volume is attached: Longhorn does not run"


def test_an_upgraded_worker_that_was_left_cordoned_attaches_a_volume_first(phase3: Platform) -> None:
    new = {node.name: Running(NEW, SCHEMATIC) for node in phase3.nodes}
    left = plan(phase3, observed(phase3, running=new, cordoned=frozenset({"talos-worker-1"})))
    assert [action.id for action in left.actions] == [
        "attach talos-worker-1",
        "uncordon talos-worker-1",
        "gate at the end",
    ]


def test_nodes_that_run_the_wanted_image_are_left_alone(phase3: Platform) -> None:
    new = {node.name: Running(NEW, SCHEMATIC) for node in phase3.nodes}
    done = plan(phase3, observed(phase3, running=new))
    assert (done.actions, done.kept) == ((), len(phase3.nodes))
    rest = plan(phase3, observed(phase3, running={k: v for k, v in new.items() if k != "talos-cp-3"}))
    assert [a.data["node"] for a in rest.actions if a.verb == "upgrade"] == ["talos-cp-3"]


def test_other_extensions_are_an_upgrade_too(phase3: Platform) -> None:
    other = {node.name: Running(NEW, SCHEMATIC) for node in phase3.nodes} | {"talos-cp-1": Running(NEW, "cd" * 32)}
    (action,) = [a for a in plan(phase3, observed(phase3, running=other)).actions if a.verb == "upgrade"]
    assert (action.data["node"], action.detail) == ("talos-cp-1", "other extensions")


def test_a_node_that_was_left_cordoned_comes_back_before_anything_else(phase3: Platform) -> None:
    running = {"talos-cp-1": Running(NEW, SCHEMATIC)}
    actions = plan(phase3, observed(phase3, running=running, cordoned=frozenset({"talos-cp-1"}))).actions
    assert actions[0].id == "uncordon talos-cp-1"
    gate = next(action for action in actions if action.verb == "check")
    assert "uncordon talos-cp-1" in gate.needs


def test_a_node_that_was_drained_only_is_upgraded_like_the_others(phase3: Platform) -> None:
    whole = plan(phase3, observed(phase3)).actions
    assert plan(phase3, observed(phase3, cordoned=frozenset({"talos-cp-1"}))).actions == whole


def test_what_is_left_of_an_approved_plan_needs_no_new_approval(phase3: Platform) -> None:
    approved = plan(phase3, observed(phase3))
    running = {"talos-cp-1": Running(NEW, SCHEMATIC)}
    left = plan(phase3, observed(phase3, running=running, leader="talos-cp-3"))
    assert left.rest_of(approved)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a downgrade": ({"running": {"talos-cp-1": Running("v1.13.11")}}, "talos-cp-1 runs talos v1.13.11"),
    "a minor version left out": ({"running": {"talos-cp-1": Running("v1.11.2")}}, "leaves a minor version out"),
    "nobody builds it": ({"offered": frozenset({"1.13.9"})}, "the Image Factory does not build Talos 1.13.10"),
    "a drain that never ends": ({"blockers": {"talos-cp-1": ("pod a: never",)}}, "talos-cp-1: pod a: never"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_touched(name: str, phase3: Platform) -> None:
    changes, expected = REFUSED[name]
    with pytest.raises(Refused) as raised:
        plan(phase3, observed(phase3, **changes))
    assert expected in raised.value.message
    assert raised.value.remedy


def test_a_silent_node_is_refused(phase3: Platform) -> None:
    whole = observed(phase3)
    without = {name: runs for name, runs in whole.running.items() if name != "talos-cp-3"}
    with pytest.raises(Refused, match="talos-cp-3: no answer"):
        plan(phase3, Observation(IMAGE, None, without, offered=whole.offered))


def test_before_there_is_a_cluster_the_missing_stage_is_named(phase3: Platform) -> None:
    assert plan(phase3, Observation(IMAGE, Missing("bootstrap-kubernetes", ""))).waits_for == "bootstrap-kubernetes"
