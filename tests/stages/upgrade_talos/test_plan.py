"""The plan of an upgrade: its order, what it refuses, and how it goes on after an interruption."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.errors import Refused, Unreachable
from fluobook.machine.schematic import Image
from fluobook.stages.core.cluster import Missing
from fluobook.stages.day_two.canary import Longhorn
from fluobook.stages.upgrade_talos import work
from fluobook.stages.upgrade_talos.plan import plan
from fluobook.stages.upgrade_talos.state import Observation, Running
from fluobook.waiting import Cancellation, wait_until

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
    assert [action.verb for action in chain[:5]] == ["check", "drain", "upgrade", "power-cycle", "uncordon"]
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
    left = plan(phase3, observed(phase3, running=new, cordoned=frozenset({"talos-worker-1"}), cold=True))
    assert [action.id for action in left.actions] == [
        "attach talos-worker-1",
        "uncordon talos-worker-1",
        "gate at the end",
    ]


def test_the_first_node_is_switched_off_and_on_once_before_the_second(phase3: Platform) -> None:
    whole = plan(phase3, observed(phase3))
    assert [action.id for action in whole.actions if action.verb == "power-cycle"] == ["power-cycle talos-cp-1"]
    assert next(a for a in whole.actions if a.id == "uncordon talos-cp-1").needs == ("power-cycle talos-cp-1",)
    assert [note for note in whole.notes if "talos-cp-1" in note and "switched off and on" in note]


def test_a_node_that_was_killed_before_its_cold_boot_has_it_before_anything_else(phase3: Platform) -> None:
    left = observed(phase3, running={"talos-cp-1": Running(NEW, SCHEMATIC)}, cordoned=frozenset({"talos-cp-1"}))
    assert [action.id for action in plan(phase3, left).actions[:2]] == ["power-cycle talos-cp-1", "uncordon talos-cp-1"]


def test_no_second_node_is_switched_off_under_the_same_image(phase3: Platform) -> None:
    assert not [a for a in plan(phase3, observed(phase3, cold=True)).actions if a.verb == "power-cycle"]


def test_a_half_upgraded_talos_is_finished_although_kubernetes_is_half_upgraded_too(phase3: Platform) -> None:
    """The upgrade of Kubernetes wants one version of Talos, so this one comes first."""
    mixed = frozenset({"1.35.4", "1.34.9"})
    assert plan(phase3, observed(phase3, running={"talos-cp-1": Running(NEW, SCHEMATIC)}, kubernetes=mixed)).actions


def test_what_another_runbook_has_in_work_is_no_matter_where_nothing_is_to_do(phase3: Platform) -> None:
    new = {node.name: Running(NEW, SCHEMATIC) for node in phase3.nodes}
    done = observed(phase3, running=new, others={"talos-worker-1": "nodes"}, kubernetes=frozenset({"1.35.4", "1.34.9"}))
    assert plan(phase3, done).actions == ()


def backwards(platform: Platform) -> Platform:
    return params.overlay(platform, {"upgrade": {"rollback": True}})


def upgraded(platform: Platform, version: str = NEW, storage: str = "3.6.0", **changes: Any) -> Observation:
    """All nodes run that version, and 1.13.9 is wanted."""
    running = {n.name: Running(version, SCHEMATIC, n.name == "talos-cp-2", storage) for n in platform.nodes}
    return observed(platform, running=running | changes.pop("running", {}), image=Image("1.13.9", SCHEMATIC), **changes)


def test_a_rollback_goes_node_by_node_with_the_leader_last_and_says_what_it_does_not_bring_back(
    phase3: Platform,
) -> None:
    back = plan(backwards(phase3), upgraded(phase3, running={"talos-worker-3": Running(OLD, SCHEMATIC)}))
    workers = ["talos-worker-1", "talos-worker-2"]
    steps = [action.data["node"] for action in back.actions if action.verb == "rollback"]
    assert steps == ["talos-cp-1", "talos-cp-3", "talos-cp-2", *workers]
    assert {action.verb for action in back.actions} == {"check", "drain", "rollback", "attach", "uncordon"}
    for before, after in itertools.pairwise(back.actions):
        assert before.id in after.needs
    assert [note for note in back.notes if note.startswith("lost: Talos v1.13.10")]
    assert [note for note in back.notes if note.startswith("not brought back: the machine configuration, etcd")]


def test_when_all_nodes_are_back_there_is_nothing_to_do_and_the_params_agree(phase3: Platform) -> None:
    for platform in (backwards(phase3), phase3):
        assert plan(platform, upgraded(phase3, OLD)).actions == ()


def test_without_the_wish_an_older_version_is_refused_and_the_wish_is_named(phase3: Platform) -> None:
    with pytest.raises(Refused) as raised:
        plan(phase3, upgraded(phase3))
    assert "--set platform.upgrade.rollback=true" in raised.value.remedy


NO_WAY_BACK: dict[str, tuple[dict[str, Any], str]] = {
    "a configuration of contract 1.14": (
        {"version": "v1.14.1", "documents": frozenset({"talos-cp-1"})},
        "talos-cp-1: Talos 1.13.9 cannot read the configuration",
    ),
    "etcd has data of 3.7": (
        {"version": "v1.14.1", "storage": "3.7.0"},
        "etcd on talos-cp-1 has data of version 3.7, and Talos 1.13.9 brings etcd 3.6",
    ),
    "etcd does not tell": ({"version": "v1.14.1", "storage": ""}, "etcd on talos-cp-1 has data of version 3.7"),
    "Kubernetes is too new": ({"kubernetes": frozenset({"1.37.0"})}, "Kubernetes 1.37.0 is not compatible with talos"),
    "a node is older": ({"running": {"talos-cp-3": Running("v1.13.7", SCHEMATIC)}}, "a rollback only goes back"),
    "a drain that never ends": ({"blockers": {"talos-cp-1": ("pod a: never",)}}, "talos-cp-1: pod a: never"),
    "another runbook has a node in work": (
        {"others": {"talos-cp-1": "nodes"}},
        "cordoned by an unfinished run of nodes",
    ),
}


@pytest.mark.parametrize("name", NO_WAY_BACK)
def test_a_way_back_that_leads_nowhere_is_refused(name: str, phase3: Platform) -> None:
    changes, expected = NO_WAY_BACK[name]
    with pytest.raises(Refused) as raised:
        plan(backwards(phase3), upgraded(phase3, **changes))
    assert expected in raised.value.message
    assert raised.value.remedy


def test_one_minor_back_is_allowed_while_etcd_still_has_the_older_data(phase3: Platform) -> None:
    """As long as one member runs the older etcd, the data of all stays with it."""
    mixed = upgraded(phase3, "v1.14.1", "3.6.0", running={"talos-cp-2": Running(OLD, SCHEMATIC, storage="3.6.0")})
    assert [a for a in plan(backwards(phase3), mixed).actions if a.verb == "rollback"]


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
    left = observed(phase3, running=running, cordoned=frozenset({"talos-cp-1"}), cold=True)
    actions = plan(phase3, left).actions
    assert actions[0].id == "uncordon talos-cp-1"
    gate = next(action for action in actions if action.verb == "check")
    assert "uncordon talos-cp-1" in gate.needs


def test_a_node_that_was_drained_only_is_upgraded_like_the_others(phase3: Platform) -> None:
    whole = plan(phase3, observed(phase3)).actions
    assert plan(phase3, observed(phase3, cordoned=frozenset({"talos-cp-1"}))).actions == whole


def test_what_is_left_of_an_approved_plan_needs_no_new_approval(phase3: Platform) -> None:
    approved = plan(phase3, observed(phase3))
    running = {"talos-cp-1": Running(NEW, SCHEMATIC)}
    left = plan(phase3, observed(phase3, running=running, leader="talos-cp-3", cold=True))
    assert left.rest_of(approved)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a downgrade": ({"running": {"talos-cp-1": Running("v1.13.11")}}, "talos-cp-1 runs talos v1.13.11"),
    "a minor version left out": ({"running": {"talos-cp-1": Running("v1.11.2")}}, "leaves a minor version out"),
    "nobody builds it": ({"offered": frozenset({"1.13.9"})}, "the Image Factory does not build Talos 1.13.10"),
    "another runbook has a node in work": (
        {"others": {"talos-worker-1": "upgrade-kubernetes"}},
        "talos-worker-1: cordoned by an unfinished run of upgrade-kubernetes",
    ),
    "Kubernetes is half upgraded": ({"kubernetes": frozenset({"1.35.4", "1.34.9"})}, "Kubernetes 1.34.9 and 1.35.4"),
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


def test_after_a_rollback_the_api_may_be_away_for_a_moment(phase3: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was on the node that restarted, or the shared address moves: the node is not asked for before it answers."""
    boots, away = ["boot-1"], [1, 2, 3]

    class Api:
        def get(self, *_name: str) -> Any:
            if len(boots) > 1 and away:
                away.pop()
                raise Unreachable("the Kubernetes API does not answer", system="kubernetes")
            return {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}

    def wait(_deadline: str, what: str, check: Any, *, interval: float = 0.01) -> Any:
        return wait_until(check, what=what, timeout=30, cancellation=Cancellation(), interval=min(interval, 0.01))

    client = SimpleNamespace(boot_id=lambda: boots[-1], rollback=lambda: boots.append("boot-2"))
    talos = SimpleNamespace(client=lambda *_: client, is_ready=lambda _: True)
    context = SimpleNamespace(platform=phase3, talos=talos, kube=Api, wait_until=wait)
    monkeypatch.setattr(work, "wanted_image", lambda _: IMAGE)
    monkeypatch.setattr(
        work, "read_running", lambda *_: Running(f"v{IMAGE.version}" if len(boots) > 1 else OLD, SCHEMATIC, leads=False)
    )
    found = work._rollback(context, phase3.workers[0], {}, lambda *_: None)
    assert (boots, away, found["version"]) == (["boot-1", "boot-2"], [], f"v{IMAGE.version}")
