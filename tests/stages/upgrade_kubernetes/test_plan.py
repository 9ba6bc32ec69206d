"""The plan of an upgrade of Kubernetes: its order, what it refuses, and how it goes on from any state."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook import params
from fluobook.errors import Refused
from fluobook.stages.core.cluster import Missing
from fluobook.stages.upgrade_kubernetes.plan import (
    CONTROL_PLANE,
    NodeState,
    Observation,
    ParamsFile,
    plan,
    version_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Node, Platform

OLD, NEW = "1.35.10", "1.36.2"
SERVER, MANAGER, SCHEDULER = CONTROL_PLANE
NODES = ("talos-cp-1", "talos-cp-2", "talos-cp-3", "talos-worker-1", "talos-worker-2", "talos-worker-3")


@pytest.fixture(scope="module")
def phase3(root: Path) -> Platform:
    return params.load("phase3", [f"versions.kubernetes={NEW}", "versions.talos=1.14.1"], root=root).platform


def images(node: Node, version: str) -> dict[str, str]:
    parts = (*CONTROL_PLANE, "kube-proxy", "kubelet") if node.role == "controlplane" else ("kubelet",)
    return {part: f"registry.example/{part}:v{version}" for part in parts}


def state(node: Node, configured: str = OLD, running: str | None = None, talos: str = "v1.14.1") -> NodeState:
    runs = {part: configured if running is None else running for part in images(node, OLD) if part != "kube-proxy"}
    return NodeState(images(node, configured), {part: version for part, version in runs.items() if version}, talos)


def observed(platform: Platform, states: dict[str, NodeState] | None = None, **changes: Any) -> Observation:
    wanted = {node.name: images(node, platform.versions.kubernetes) for node in platform.nodes}
    nodes = {node.name: state(node) for node in platform.nodes} | (states or {})
    return Observation(wanted, nodes=nodes, programs={"cilium": frozenset({"1.20.2"})}, **changes)


def steps(platform: Platform, observation: Observation) -> list[str]:
    return [a.id for a in plan(platform, observation).actions if a.verb not in ("check", "pull")]


def test_images_come_first_then_part_by_part_then_kubelets(phase3: Platform) -> None:
    actions = plan(phase3, observed(phase3)).actions
    pulls = [action for action in actions if action.verb == "pull"]
    assert {action.data["node"]: len(action.data["images"]) for action in pulls} == {
        name: 4 if "cp" in name else 1 for name in NODES
    }
    assert not any(action.needs for action in pulls)
    planes = [name for name in NODES if "cp" in name]
    replaced = [action.id for action in actions if action.verb == "replace"]
    assert replaced == [f"{part} {name}" for part in CONTROL_PLANE for name in planes]
    assert [action.data["node"] for action in actions if action.verb == "upgrade"] == list(NODES)
    assert [action.id for action in actions][-2:] == ["manifests", "gate at the end"]


def test_every_action_waits_for_the_one_before(phase3: Platform) -> None:
    """So at most one node is away at any time, whatever runs in parallel."""
    actions = plan(phase3, observed(phase3)).actions
    chain = [action for action in actions if action.verb != "pull"]
    assert {action.id for action in actions if action.verb == "pull"} <= set(chain[0].needs)
    for before, after in itertools.pairwise(chain):
        assert before.id in after.needs
    for before, after in itertools.pairwise(chain):
        if after.verb == "drain" or after.id.startswith(SERVER):
            assert before.verb == "check"


def test_each_proxy_follows_its_kubelet(phase3: Platform) -> None:
    upgrades = [action for action in plan(phase3, observed(phase3)).actions if action.verb == "upgrade"]
    assert [sorted(action.data["images"]) for action in upgrades[::3]] == [["kube-proxy", "kubelet"], ["kubelet"]]


def test_a_plan_names_what_is_interrupted(phase3: Platform) -> None:
    notes = plan(phase3, observed(phase3)).notes
    assert "interrupted: talos-worker-1, with what runs on it alone" in notes
    assert any(note.startswith("interrupted: connections to the API server of each of talos-cp-1") for note in notes)


def test_a_program_that_is_not_tested_with_the_version_is_named_and_does_not_hinder(phase3: Platform) -> None:
    programs = {"cilium": frozenset({"1.20.2"}), "ingress-nginx": frozenset({"1.15.1"})}
    notes = plan(phase3, replace(observed(phase3), programs=programs)).notes
    assert any("is not compatible with ingress-nginx 1.15.1" in note for note in notes)


def test_nothing_is_to_do_where_everything_is_current(phase3: Platform) -> None:
    current = {node.name: state(node, NEW) for node in phase3.nodes}
    done = plan(phase3, observed(phase3, current))
    assert (done.actions, done.notes, done.kept) == ((), (), len(NODES))


def cut(nodes: dict[str, NodeState], name: str, part: str, *, ready: bool = True) -> None:
    """Bring one part of one node to the new version, or to where it is only configured."""
    has = nodes[name]
    configured = {**has.configured, part: has.configured[part].replace(OLD, NEW)}
    running = {**has.running, part: NEW} if ready else {k: v for k, v in has.running.items() if k != part}
    nodes[name] = NodeState(configured, running, has.talos)


def test_an_upgrade_goes_on_from_every_state_in_which_it_can_be_left(phase3: Platform) -> None:
    """Each part in turn is first only configured, then ready; what is left is always the end of the whole plan."""
    approved = plan(phase3, observed(phase3))
    whole = [action.id for action in approved.actions]
    nodes = {node.name: state(node) for node in phase3.nodes}
    order = [(name, part) for part in CONTROL_PLANE for name in NODES if "cp" in name]
    order += [(name, "kubelet") for name in NODES]
    for name, part in order:
        for ready in (False, True):
            cut(nodes, name, part, ready=ready)
            if part == "kubelet" and "cp" in name:
                cut(nodes, name, "kube-proxy")
            left = plan(phase3, observed(phase3, nodes))
            assert left.rest_of(approved)
            assert [action.id for action in left.actions] == [i for i in whole if i in {a.id for a in left.actions}]
            first = next((a.id for a in left.actions if a.verb in ("replace", "upgrade")), "")
            assert (first == (f"upgrade {name}" if part == "kubelet" else f"{part} {name}")) is not ready
    assert plan(phase3, observed(phase3, nodes)).actions == ()


@given(st.data())
def test_what_is_left_is_what_is_not_current_in_the_order_of_kubernetes(phase3: Platform, data: st.DataObject) -> None:
    """Whatever mixture of versions an upgrade was left in, by this runbook or by hand."""
    nodes = {node.name: state(node) for node in phase3.nodes}
    left = []
    for name in NODES:
        for part in (*CONTROL_PLANE, "kubelet") if "cp" in name else ("kubelet",):
            if how := data.draw(st.sampled_from(("", "configured", "ready"))):
                cut(nodes, name, part, ready=how == "ready")
            if part == "kubelet" and "cp" in name and how:
                cut(nodes, name, "kube-proxy")
            left += [f"upgrade {name}" if part == "kubelet" else f"{part} {name}"] * (how != "ready")
    done = [i for i in steps(phase3, observed(phase3, nodes)) if i.split()[0] in (*CONTROL_PLANE, "upgrade")]
    assert sorted(done) == sorted(left)
    ranks = [(*CONTROL_PLANE, "upgrade").index(i.split()[0]) for i in done]
    assert ranks == sorted(ranks)


def test_no_gate_stands_before_what_an_earlier_run_began(phase3: Platform) -> None:
    """The gate would wait for the node that the action brings back."""
    nodes = {node.name: state(node) for node in phase3.nodes}
    cut(nodes, "talos-cp-1", SERVER, ready=False)
    actions = plan(phase3, observed(phase3, nodes)).actions
    assert next(action.id for action in actions if action.verb != "pull") == f"{SERVER} talos-cp-1"
    nodes = {node.name: state(node, NEW) for node in phase3.nodes} | {
        "talos-cp-1": state(phase3.node("talos-cp-1"), NEW)
    }
    cut(nodes, "talos-cp-1", "kubelet", ready=False)
    actions = plan(phase3, observed(phase3, nodes, cordoned=frozenset({"talos-cp-1"}))).actions
    assert [action.verb for action in actions][:4] == ["pull", "drain", "upgrade", "uncordon"]


def test_a_part_that_is_not_ready_comes_before_the_next_is_taken_away(phase3: Platform) -> None:
    nodes = {node.name: state(node) for node in phase3.nodes}
    cut(nodes, "talos-cp-2", SERVER, ready=False)
    replaced = [i for i in steps(phase3, observed(phase3, nodes)) if i.startswith(SERVER)]
    assert replaced == [f"{SERVER} {name}" for name in ("talos-cp-2", "talos-cp-1", "talos-cp-3")]


def test_a_node_that_was_left_cordoned_comes_back_before_anything_else(phase3: Platform) -> None:
    nodes = {"talos-cp-1": state(phase3.node("talos-cp-1"), NEW)}
    actions = plan(phase3, observed(phase3, nodes, cordoned=frozenset({"talos-cp-1"}))).actions
    assert actions[0].id == "uncordon talos-cp-1"
    assert "uncordon talos-cp-1" in next(action for action in actions if action.verb == "check").needs


def test_a_node_that_is_only_cordoned_is_upgraded_like_the_others(phase3: Platform) -> None:
    whole = steps(phase3, observed(phase3))
    assert steps(phase3, observed(phase3, cordoned=frozenset({"talos-cp-1"}))) == whole


FILE = ParamsFile("params/phase3.yaml", OLD, "-old\n+new")


def test_the_params_file_is_changed_after_the_images_and_before_the_cluster(phase3: Platform) -> None:
    """A run that is killed from then on is completed by one without --set."""
    actions = plan(phase3, observed(phase3, params=FILE)).actions
    chain = [action for action in actions if action.verb != "pull"]
    assert (chain[0].id, chain[0].detail) == ("params", f"versions.kubernetes: {OLD} to {NEW}")
    assert {f"pull {name}" for name in NODES} <= set(chain[0].needs)
    assert "params" in chain[1].needs
    assert any("-old\n+new" in note for note in plan(phase3, observed(phase3, params=FILE)).notes)


def test_the_params_file_alone_is_a_plan(phase3: Platform) -> None:
    current = {node.name: state(node, NEW) for node in phase3.nodes}
    assert steps(phase3, observed(phase3, current, params=FILE)) == ["params"]


def test_a_rehearsal_shows_what_it_would_write_and_writes_nothing(phase3: Platform) -> None:
    rehearsed = plan(phase3, observed(phase3, params=replace(FILE, writes=False)))
    assert "params" not in [action.id for action in rehearsed.actions]
    assert any("-old\n+new" in note for note in rehearsed.notes)


def test_talos_own_objects_alone_are_a_plan(phase3: Platform) -> None:
    """After an upgrade of Talos CoreDNS is older than Talos has it."""
    current = {node.name: state(node, NEW) for node in phase3.nodes}
    done = observed(phase3, current, manifests=("Deployment coredns",))
    assert steps(phase3, done) == ["manifests"]
    assert plan(phase3, done).actions[0].detail == "Deployment coredns"


def at(name: str, **given: str) -> dict[str, Any]:
    return {"states": {name: given}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Talos is half upgraded": (
        {"others": {"talos-cp-1": "upgrade-talos"}},
        "talos-cp-1: cordoned by an unfinished run of upgrade-talos",
    ),
    "a kubelet would go back": (
        at("talos-worker-1", configured="1.36.3"),
        "kubelet on talos-worker-1: runs kubernetes 1.36.3; versions.kubernetes is 1.36.2, which is older",
    ),
    "a minor version would be left out": (
        at("talos-cp-1", configured="1.34.1"),
        "kube-apiserver on talos-cp-1 and 3 more: runs kubernetes 1.34.1; versions.kubernetes is 1.36.2, which leaves",
    ),
    "a half-done upgrade to another version would go back": (
        at("talos-cp-1", configured="1.36.3", running=OLD),
        "kube-apiserver on talos-cp-1 and 3 more: runs kubernetes 1.36.3",
    ),
    "a half-done upgrade would begin a second step": (
        at("talos-worker-2", configured=OLD, running="1.34.1"),
        "kubelet on talos-worker-2: runs kubernetes 1.34.1",
    ),
    "Talos does not support it": (
        {"talos": "v1.12.11"},
        "Kubernetes 1.36.2 is not compatible with talos v1.12.11",
    ),
    "Talos is being upgraded": (
        at("talos-cp-1", talos="v1.14.2"),
        "the nodes run Talos v1.14.1 and v1.14.2",
    ),
    "Cilium comes first": (
        {"programs": {"cilium": frozenset({"1.19.4"})}},
        "Kubernetes 1.36.2 is not compatible with cilium 1.19.4: row cilium 1.19",
    ),
    "something in use was removed": (
        {"removed": ("talos-cp-1: kubelet: the flag container-hints was removed in 1.36",)},
        "no longer has what is in use:\n  talos-cp-1: kubelet: the flag container-hints",
    ),
    "a drain that never ends": ({"blockers": {"talos-cp-1": ("pod a: never",)}}, "talos-cp-1: pod a: never"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_touched(name: str, phase3: Platform) -> None:
    changes, expected = REFUSED[name]
    states = {n: state(phase3.node(n), **given) for n, given in changes.get("states", {}).items()}
    if talos := changes.get("talos"):
        states = {node.name: state(node, talos=talos) for node in phase3.nodes}
    others = {key: value for key, value in changes.items() if key not in ("states", "talos")}
    with pytest.raises(Refused) as raised:
        plan(phase3, replace(observed(phase3, states), **others))
    assert expected in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(("tree", "remedy"), [("1.20.2", "let Argo CD sync it"), ("1.19.7", "change its version")])
def test_the_way_to_a_newer_cilium_depends_on_the_tree(tree: str, remedy: str, phase3: Platform) -> None:
    old = replace(observed(phase3), programs={"cilium": frozenset({"1.19.4"})}, cilium=tree)
    with pytest.raises(Refused) as raised:
        plan(phase3, old)
    assert remedy in raised.value.remedy


def test_a_blocker_on_a_node_that_is_done_does_not_hinder(phase3: Platform) -> None:
    nodes = {"talos-cp-1": state(phase3.node("talos-cp-1"), NEW)}
    assert plan(phase3, observed(phase3, nodes, blockers={"talos-cp-1": ("pod a: never",)})).actions


def test_a_silent_node_is_refused(phase3: Platform) -> None:
    whole = observed(phase3)
    without = {name: has for name, has in whole.nodes.items() if name != "talos-cp-3"}
    with pytest.raises(Refused, match="talos-cp-3: no answer"):
        plan(phase3, replace(whole, nodes=without))


def test_before_there_is_a_cluster_the_missing_stage_is_named(phase3: Platform) -> None:
    assert plan(phase3, Observation(missing=Missing("bootstrap-kubernetes", ""))).waits_for == "bootstrap-kubernetes"


IMAGES = {
    "registry.k8s.io/kube-apiserver:v1.35.4": "1.35.4",
    "ghcr.io/siderolabs/kubelet:v1.35.4-slim": "1.35.4",
    "mirror.example:5000/kubelet:v1.35.4@sha256:00": "1.35.4",
    "mirror.example:5000/kubelet": "",
    "": "",
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_version_is_read_from_the_name_of_an_image(image: str) -> None:
    assert version_of(image) == IMAGES[image]
