"""A teardown: what is ours, what is left alone, and how it ends when it is interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluobook.context import POLICIES
from fluobook.errors import ApprovalNeeded, FluobookError, ForeignObject, Locked, Refused
from fluobook.notebook import stage_run
from fluobook.params import derive
from fluobook.stages import teardown
from fluobook.stages.core.plan import Answer, Approval, Gate
from fluobook.stages.create_vms.plan import ObservedVM
from tests.stages.create_vms.test_plan import ALL, CONTROL_PLANE, PLATFORM, WORKER, observed, task, vm

CLUSTER = PLATFORM.cluster.name
CLONE = "smbios1", "uuid=00000000-0000-4000-8000-000000000000"


def plan(*vms, **rest):
    return teardown.plan(PLATFORM, observed(*vms, **rest))


def other(name, uuid, vmid=900, host=CONTROL_PLANE.host):
    return ObservedVM({"vmid": vmid, "name": name, "node": host}, {**ALL[1].config, "smbios1": f"uuid={uuid}"})


def test_every_vm_of_the_cluster_is_destroyed_and_the_one_with_the_claim_last():
    actions = plan(*ALL).actions
    assert {action.object for action in actions} == {f"vm {node.name}" for node in PLATFORM.nodes}
    assert actions[-1].object == f"vm {CONTROL_PLANE.name}"
    assert set(actions[-1].needs) == {action.id for action in actions[:-1]}
    assert plan().actions == ()


def test_the_plan_names_what_is_destroyed_by_name_and_size_and_what_is_lost_and_kept():
    text = plan(*ALL).table().text()
    detail = f"VM {WORKER.vmid} on {WORKER.host}, running, scsi0 {WORKER.boot_disk_gib}G, scsi1 {WORKER.data_disk_gib}G"
    assert detail in " ".join(text.split())
    assert f"WILL BE DESTROYED: {CLUSTER}" in text
    assert teardown.LOST in text
    assert teardown.KEPT in text
    snapshot = plan(vm(WORKER, parent="before", unused0="local-lvm:vm-9-disk-7")).actions[0].detail
    assert "unused0 local-lvm:vm-9-disk-7" in snapshot
    assert snapshot.endswith("its snapshots")


def test_all_does_not_approve_it_and_the_name_of_the_cluster_does():
    gate = Gate(Approval.parse("all"), POLICIES["lab"], CLUSTER)
    with pytest.raises(ApprovalNeeded):
        gate.admit(plan(*ALL))
    asked = []
    by_name = replace(gate, ask=lambda question: asked.append(question.word) or Answer("prompt", CLUSTER))
    assert by_name.admit(plan(*ALL)).text == CLUSTER
    assert asked == [CLUSTER]


@pytest.mark.parametrize(
    ("name", "uuid", "ours"),
    [
        ("talos-worker-9", derive.uuid_of(CLUSTER, "talos-worker-9"), True),
        ("Copy-of-VM-talos-worker-1", "00000000-0000-4000-8000-000000000000", False),
        ("talos-worker-9", derive.uuid_of("another", "talos-worker-9"), False),
    ],
    ids=["a node that left the params", "a clone", "a node of another cluster that got our tag"],
)
def test_a_vm_with_our_tags_is_ours_by_its_uuid(name, uuid, ours):
    made = plan(strays=[other(name, uuid)])
    assert [action.object for action in made.actions] == ([f"vm {name}"] if ours else [])
    assert any(note.startswith(f"left alone: VM 900 ({name})") for note in made.notes) is not ours


def test_what_is_not_ours_is_left_alone_and_named():
    foreign = vm(WORKER, tags="production", smbios1=CLONE[1])
    made = plan(
        ALL[0], foreign, strays=[other("talos-worker-9", derive.uuid_of(CLUSTER, "talos-worker-9"), host="far")]
    )
    assert [action.object for action in made.actions] == [f"vm {CONTROL_PLANE.name}"]
    assert any("it does not have our tag" in note for note in made.notes)
    assert any("its host is not in the params" in note for note in made.notes)


def test_a_protected_vm_and_one_that_somebody_else_is_changing_stop_it():
    with pytest.raises(Refused, match=f"VM {WORKER.vmid}"):
        plan(ALL[0], vm(WORKER, protection=1))
    with pytest.raises(Locked, match="root@pam"):
        plan(*ALL, tasks=[task("qmigrate", str(WORKER.vmid))])


@pytest.mark.lab
def test_a_teardown_goes_on_after_an_interruption_and_leaves_the_rest_of_the_site(labs):
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config")
    inventory = lab.environment.proxmox["laptop"].inventory
    first, second = (inventory.vms[node.vmid] for node in PLATFORM.nodes[:2])
    clone = replace(second, vmid=555, config={**second.config, "smbios1": CLONE[1], "name": "clone"})
    foreign = replace(first, vmid=556, config={"name": "foreign", "smbios1": "uuid=" + "1" * 8 + CLONE[1][13:]})
    inventory.vms |= {555: clone, 556: foreign}

    def killed(context, action, report):
        if action.object == f"vm {PLATFORM.nodes[1].name}":
            raise FluobookError("the laptop was closed")
        return teardown.perform(context, action, report)

    def run(perform):
        gate = Gate(Approval(), POLICIES["lab"], CLUSTER, ask=lambda question: Answer("prompt", question.word))
        stage = stage_run(replace(teardown.STAGE, perform=perform), lab.context(), gate)
        stage.apply(stage.plan())
        return stage

    with pytest.raises(FluobookError, match="the laptop was closed"):
        run(killed)
    assert PLATFORM.nodes[0].vmid in inventory.vms
    assert lab.stage("teardown").plan().actions[-1].object == f"vm {CONTROL_PLANE.name}"
    assert run(teardown.perform).verify().ok
    assert set(inventory.vms) == {555, 556}
    assert lab.context().secrets.has_bundle()
    lab.mark()
    run(teardown.perform)
    assert lab.requests(mutating=True) == []
    lab.bring_up("create-vms", "apply-talos-config")


@pytest.mark.lab
def test_a_vm_that_somebody_put_in_the_place_of_ours_is_not_destroyed(labs):
    lab = labs()
    lab.bring_up("create-vms")
    stage = lab.stage("teardown")
    action = stage.plan().actions[0]
    lab.environment.proxmox["laptop"].inventory.vms[action.data["vmid"]].config["smbios1"] = CLONE[1]
    with pytest.raises(ForeignObject, match=f"VM {action.data['vmid']}"):
        teardown.perform(lab.context(), action, lambda _: None)
