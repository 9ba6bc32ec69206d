"""Nodes that leave and nodes that are lost: what is planned, and etcd's quorum at every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fluobook import params
from fluobook.clients.talos.resources import EtcdMember
from fluobook.context import POLICIES
from fluobook.errors import Refused
from fluobook.machine.schematic import Image
from fluobook.notebook import stage_run
from fluobook.params import derive
from fluobook.stages import approve_csrs, catalogue, nodes
from fluobook.stages.core.drain import CORDONED_BY, Load
from fluobook.stages.core.plan import Answer, Approval, Gate
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.create_vms.plan import Observation as VMs
from fluobook.stages.create_vms.plan import ObservedVM

PLATFORM = params.load("phase3", root=params.repository_root()).platform
CLUSTER = PLATFORM.cluster.name
PLANES = [node.name for node in PLATFORM.control_planes]
WORKERS = [node.name for node in PLATFORM.nodes if node.role == "worker"]
HOST = PLATFORM.nodes[0].host


def vm(name: str) -> ObservedVM:
    tags = f"fluobook;fluobook-{CLUSTER}"
    uuid = derive.uuid_of(CLUSTER, name)
    return ObservedVM({"vmid": 100 + len(name), "name": name, "node": HOST}, {"smbios1": f"uuid={uuid}", "tags": tags})


def node(name: str, *, ready: bool = True) -> dict[str, Any]:
    status = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "addresses": [{"type": "InternalIP", "address": "1"}],
    }
    return {"metadata": {"name": name}, "spec": {}, "status": status}


def observed(*, without: tuple[str, ...] = (), more: tuple[str, ...] = (), down: tuple[str, ...] = (), **rest: Any):
    """All nodes but those `without` a VM; `more` have joined and are in no params, `down` are not Ready."""
    of_nodes = {each.name: [] if each.name in without else [vm(each.name)] for each in PLATFORM.nodes}
    strays = [vm(name) for name in more if name not in without]
    names = [*PLANES, *WORKERS, *more]
    voters = [name for name in names if "cp" in name]
    return nodes.Observation(
        VMs(Image("1.14.1", "0" * 64), frozenset(), of_nodes, strays=strays),
        [node(name, ready=name not in (*without, *down)) for name in names],
        [EtcdMember(f"{number:016x}", name, (), (), learner=False) for number, name in enumerate(voters, 1)],
        **rest,
    )


def steps(observation: nodes.Observation) -> list[str]:
    return [action.id for action in nodes.plan(PLATFORM, observation).actions]


def test_a_platform_that_is_whole_needs_nothing():
    assert steps(observed()) == []


def test_a_lost_node_is_forgotten_and_the_bring_up_is_named_that_makes_it_anew():
    plan = nodes.plan(PLATFORM, observed(without=(PLANES[1],)))
    assert [action.id for action in plan.actions] == [f"delete etcd member {PLANES[1]}", f"delete node {PLANES[1]}"]
    assert plan.destroys == ()
    assert "makes a lost node anew" in plan.notes[0]
    assert steps(observed(without=(WORKERS[0],))) == [f"delete node {WORKERS[0]}"]


def test_a_node_that_left_the_params_is_drained_leaves_etcd_and_is_destroyed_workers_first():
    plan = nodes.plan(PLATFORM, observed(more=("old-cp", "old-worker")))
    assert [f"{action.verb} {action.object}" for action in plan.actions] == [
        f"{step} {name}"
        for name in ("old-worker", "old-cp")
        for step in ("drain node", "reset machine", "delete node", "delete vm")
    ]
    assert all(action.needs == (before.id,) for before, action in zip(plan.actions, plan.actions[1:], strict=False))
    assert plan.destroys == ("old-worker", "old-cp")


def test_a_former_node_that_is_down_is_removed_from_etcd_by_the_others():
    assert steps(observed(more=("old-cp",), down=("old-cp",)))[:2] == [
        "delete etcd member old-cp",
        "delete node old-cp",
    ]


def test_a_node_that_is_in_the_params_again_after_its_drain_is_uncordoned():
    """But not one that somebody else cordoned, nor one that still leaves."""
    found = observed(more=("talos-worker-9",))
    for each in found.nodes:
        by = nodes.NAME if each["metadata"]["name"] in (WORKERS[0], "talos-worker-9") else ""
        each["metadata"]["annotations"] = {CORDONED_BY: by}
        each["spec"]["unschedulable"] = True
    first, *rest = nodes.plan(PLATFORM, found).actions
    assert (first.id, first.object) == (f"uncordon node {WORKERS[0]}", f"node {WORKERS[0]}")
    assert rest[0].needs == (first.id,)
    assert not [action for action in rest if action.verb == "uncordon"]


def test_a_node_that_lives_is_not_lost_although_nobody_sees_its_vm():
    unseen = observed(without=(WORKERS[0],))
    ready = nodes.Observation(unseen.vms, [node(name) for name in [*PLANES, *WORKERS]], unseen.members)
    with pytest.raises(Refused, match=f"{WORKERS[0]}: no VM"):
        steps(ready)
    address = next(each.address for each in PLATFORM.nodes if each.name == WORKERS[0])
    answering = nodes.Observation(replace(unseen.vms, answering=frozenset({address})), unseen.nodes, unseen.members)
    with pytest.raises(Refused, match=f"{WORKERS[0]}: no VM"):
        steps(answering)


@pytest.mark.parametrize(
    ("more", "without", "down", "refused"),
    [
        (("old-cp",), (), (PLANES[0],), False),
        ((), (PLANES[0],), (PLANES[1],), True),
        (("old-cp",), (), (PLANES[0], PLANES[1]), True),
        ((), (PLANES[0], PLANES[1]), (), True),
    ],
    ids=["4 voters, 1 down, a healthy one leaves", "2 of 3 down", "4 voters, 2 down", "2 of 3 lost"],
)
def test_etcd_keeps_its_quorum_at_every_step_or_nothing_begins(more, without, down, refused):
    observation = observed(more=more, without=without, down=down)
    if not refused:
        assert steps(observation)
        return
    with pytest.raises(Refused, match="no quorum"):
        steps(observation)


def test_the_only_replica_of_a_volume_keeps_a_node_from_leaving():
    volume = {"metadata": {"name": "pvc-1"}, "spec": {}}
    replica = {"spec": {"volumeName": "pvc-1", "nodeID": "old-worker"}}
    load = Load(volumes=[volume], replicas=[replica], policy="allow-if-replica-is-stopped")
    with pytest.raises(Refused, match="only replica of pvc-1"):
        steps(observed(more=("old-worker",), load=load))
    elsewhere = Load(volumes=[volume], replicas=[replica, {"spec": {"volumeName": "pvc-1", "nodeID": WORKERS[0]}}])
    assert steps(observed(more=("old-worker",), load=elsewhere))


def test_a_machine_of_somebody_else_that_joined_is_left_alone():
    foreign = ObservedVM({**vm("guest").resource}, {**vm("guest").config, "smbios1": "uuid=" + "0" * 8 + "-0000" * 3})
    observation = observed(more=("guest",))
    observation = nodes.Observation(
        VMs(observation.vms.image, frozenset(), observation.vms.vms, strays=[foreign]),
        observation.nodes,
        observation.members,
    )
    plan = nodes.plan(PLATFORM, observation)
    assert plan.actions == ()
    assert plan.notes[0].startswith("left alone: guest")


@pytest.mark.lab
def test_a_lost_control_plane_is_replaced_and_a_worker_leaves(shared_labs: Any) -> None:
    lab = shared_labs(phase="phase3")
    before = ("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    lab.bring_up(*before)
    platform, lost = lab.chosen.platform, lab.chosen.platform.control_planes[1]
    machine = lab.context().proxmox(platform.endpoint_of(lost).name)
    machine.wait(machine.stop(lost.host, lost.vmid), deadline=60)
    machine.wait(machine.delete(lost.host, lost.vmid), deadline=60)
    gone = lab.context()
    gone.wait_until(
        "nodes_ready",
        f"{lost.name} to be NotReady",
        lambda: None if has_condition(gone.kube().get("v1", "Node", lost.name), "Ready") else True,
    )

    def apply(context: Any) -> None:
        gate = Gate(Approval(), POLICIES["lab"], CLUSTER, ask=lambda question: Answer("prompt", question.word))
        stage = stage_run(catalogue.find("nodes"), context, gate)
        stage.apply(stage.plan())
        assert stage.verify().ok

    apply(lab.context())
    first = lab.context().talos.client(platform.control_planes[0])
    assert {member.hostname for member in first.etcd_members()} == set(PLANES) - {lost.name}
    lab.bring_up(*before)
    assert {(member.hostname, member.learner) for member in first.etcd_members()} == {(name, False) for name in PLANES}

    context = lab.context()
    leaves = context.platform.nodes[-1]
    remaining = [node for node in context.platform.nodes if node is not leaves]
    context.platform = context.platform.model_copy(update={"nodes": tuple(remaining)})
    apply(context)
    assert leaves.vmid not in lab.environment.proxmox[platform.endpoint_of(leaves).name].inventory.vms
    assert lab.context().kube().find("v1", "Node", leaves.name) is None
    assert all(check.passed for check in approve_csrs.verify(context, approve_csrs.observe(context)))
    lab.mark()
    apply(context)
    assert lab.requests(mutating=True) == []
