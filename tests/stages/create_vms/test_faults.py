"""Stage 1 against a Proxmox VE that fails, is slow, or holds what is not ours."""

from __future__ import annotations

from collections import Counter

import pytest

from fluobook import params
from fluobook.errors import AccessDenied, FluobookError, ForeignObject, Locked, NotFound, TaskFailed
from fluobook.failures import present
from fluobook.stages.core.executor import Progress

pytestmark = pytest.mark.lab
NODES = 3


def creations(lab):
    """How often each VM was really created."""
    tasks = lab.environment.proxmox["laptop"].tasks.all.values()
    return Counter(task.id for task in tasks if task.type == "qmcreate" and task.exit == "OK")


@pytest.mark.parametrize(
    "fault",
    [
        "proxmox.create-500-once",
        "proxmox.create-596-once",
        "proxmox.create-lost-once",
        "proxmox.start-500-once",
        "proxmox.start-596-once",
        "proxmox.start-lost-once",
        "proxmox.task-status-400-once",
        "proxmox.task-status-500-once",
        "proxmox.resources-stale",
        "factory.503-once",
    ],
)
def test_a_passing_fault_is_survived_and_each_vm_created_once(labs, fault):
    lab = labs(fault)
    lab.bring_up("create-vms")
    assert not lab.stage("create-vms").plan().actions
    assert sorted(creations(lab).values()) == [1] * NODES


def test_a_start_that_fails_is_started_again_and_never_destroyed(labs):
    lab = labs("proxmox.start-task-fails")
    lab.bring_up("create-vms")
    starts = [path for path in lab.paths("POST") if path.endswith("/status/start")]
    assert len(starts) == NODES + 1
    assert lab.paths("DELETE") == []


def test_a_start_that_keeps_failing_is_reported_with_the_tail_of_its_log(labs):
    lab = labs(*["proxmox.start-task-fails"] * 3 * NODES)
    stage = lab.stage("create-vms")
    with pytest.raises(TaskFailed, match=r"create-vms, start talos-.*and 2 more failed") as caught:
        stage.apply(stage.plan())
    assert "proxmox answered:\n    TASK ERROR: start failed" in present(caught.value).text()
    assert lab.paths("DELETE") == []
    lab.bring_up("create-vms")
    assert sorted(creations(lab).values()) == [1] * NODES


def test_a_creation_that_fails_is_reported_and_what_needs_it_is_not_started(labs):
    lab = labs("proxmox.create-task-fails")
    stage = lab.stage("create-vms")
    with pytest.raises(TaskFailed) as caught:
        stage.apply(stage.plan())
    assert "TASK ERROR" in present(caught.value).text()
    assert len([path for path in lab.paths("POST") if path.endswith("/status/start")]) == NODES - 1
    lab.bring_up("create-vms")
    assert sorted(creations(lab).values()) == [1] * NODES


def test_a_backup_is_waited_for_and_its_lock_is_shown(labs, monkeypatch):
    lab, messages = labs("proxmox.lock-backup"), []
    original_set = Progress.set

    def note(progress, action, state, message=""):
        messages.append(message)
        original_set(progress, action, state, message)

    monkeypatch.setattr(Progress, "set", note)
    lab.bring_up("create-vms")
    assert "locked (backup)" in messages


def test_a_lock_that_stays_ends_in_an_error_that_names_it(labs):
    lab = labs()
    lab.bring_up("create-vms")
    node = lab.chosen.platform.nodes[1]
    proxmox = lab.environment.proxmox["laptop"]
    lab.background.call(proxmox.set_lock, node.vmid, "backup")
    stage = lab.stage("create-vms", f"nodes.{node.name}.cores=8", "deadlines.vm_lock=1")
    with pytest.raises(FluobookError, match=rf"waiting for the lock of VM {node.vmid} on pve1.*vm_lock") as caught:
        stage.apply(stage.plan())
    assert caught.value.cause == f"VM {node.vmid} on pve1 is still locked (backup)"
    lab.background.call(proxmox.remove_lock, node.vmid)


def test_a_full_storage_is_named_and_nothing_is_made(labs):
    lab = labs("proxmox.storage-full")
    stage = lab.stage("create-vms")
    with pytest.raises(TaskFailed, match="No space left") as caught:
        stage.apply(stage.plan())
    assert present(caught.value).failure == "F64 The storage is full"
    assert "Free space" in present(caught.value).remedy
    assert not creations(lab)


def test_an_image_that_breaks_off_is_fetched_by_the_next_run(labs):
    lab = labs("proxmox.download-fails")
    stage = lab.stage("create-vms")
    with pytest.raises(TaskFailed, match="image pve1"):
        stage.apply(stage.plan())
    assert not creations(lab)
    lab.bring_up("create-vms")


@pytest.mark.parametrize("fault", ["proxmox.token-wrong", "proxmox.token-no-rights"])
def test_a_refused_token_changes_nothing_and_the_command_that_helps_is_shown(labs, fault):
    lab = labs(fault)
    with pytest.raises(AccessDenied) as caught:
        lab.stage("create-vms").plan()
    assert "fluobook@pve!fluobook" in present(caught.value).text()
    assert "pveum" in present(caught.value).advice
    assert lab.requests(mutating=True) == []


@pytest.mark.parametrize(
    ("fault", "property_taken"), [("foreign-vmid", "number"), ("foreign-vm-with-our-name", "name")]
)
def test_a_vm_of_somebody_else_stops_the_stage(labs, fault, property_taken):
    lab = labs(f"proxmox.{fault}")
    with pytest.raises(
        ForeignObject, match=rf"has the {property_taken}.* of talos-cp-1 and is not managed by fluobook"
    ) as caught:
        lab.stage("create-vms").plan()
    assert "nodes[].vmid" in caught.value.remedy
    assert lab.requests(mutating=True) == []


def test_an_address_that_is_taken_stops_the_stage(labs):
    lab = labs()
    lab.bring_up("create-vms")
    lab.mark()
    written = lab.chosen.platform.written
    renamed = [{**node, "name": node["name"].replace("worker-1", "worker-9")} for node in written["nodes"]]
    lab.chosen = params.parse({"phase": "phase1", "platform": {**written, "nodes": renamed}}, root=lab.context().root)
    with pytest.raises(ForeignObject, match=r"something answers at 10\.10\.0\.20, the address of talos-worker-9"):
        lab.stage("create-vms").plan()
    assert lab.requests(mutating=True) == []


def test_a_host_that_is_not_there_is_named_with_those_that_are(labs):
    lab = labs()
    context = lab.context(
        proxmox=[{"name": "laptop", "hosts": ["pve1", "pve9"]}], nodes=[{"name": "talos-cp-1", "host": "pve9"}]
    )
    with pytest.raises(NotFound, match="pve9 is not there; known are pve1"):
        lab.stage("create-vms", context=context).plan()


def test_another_operators_task_on_a_vm_of_ours_stops_the_stage_and_is_named(labs):
    lab = labs(speed=20)
    lab.bring_up("create-vms")
    lab.add_fault("proxmox.shutdown-ignored")
    node = lab.chosen.platform.nodes[0]
    lab.context().proxmox("laptop").shutdown("pve1", node.vmid, timeout=36_000)
    for task in lab.environment.proxmox["laptop"].tasks.all.values():
        if task.type == "qmshutdown":
            task.upid, task.user = task.upid.replace("fluobook@pve!fluobook", "eve@pam"), "eve@pam"
    assert not lab.stage("create-vms").plan().actions
    with pytest.raises(Locked, match="eve@pam is changing talos-cp-1: task qmshutdown"):
        lab.stage("create-vms", "nodes.talos-cp-1.cores=4").plan()
