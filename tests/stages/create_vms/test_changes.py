"""What stage 1 does about VMs of ours that are there already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fluobook import params
from fluobook.errors import Refused

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(labs):
    lab = labs()
    lab.bring_up("create-vms")
    lab.mark()
    return lab


def vms(lab):
    return {vm.name: vm for vm in lab.environment.proxmox["laptop"].inventory.vms.values()}


def test_a_second_run_asks_three_times_and_once_for_each_vm(lab):
    lab.bring_up("create-vms")
    assert len(lab.requests("proxmox")) <= len(lab.chosen.platform.nodes) + 3
    assert lab.requests(mutating=True) == []


def test_tags_and_start_order_are_changed_at_once(lab):
    settings = ("vm.tags=[prod]", "nodes.talos-worker-1.start_order=2")
    stage = lab.stage("create-vms", *settings)
    plan = stage.plan()
    assert [action.verb for action in plan.actions] == ["change"] * 3
    stage.apply(plan)
    stage.verify()
    config = vms(lab)["talos-worker-1"].config
    assert (config["tags"], config["startup"]) == ("fluobook;fluobook-fluodata;prod", "order=2")
    assert lab.stage("create-vms", *settings).plan().actions == ()


def test_a_vm_is_created_in_its_pool_and_moved_by_an_administrator_alone(labs):
    lab = labs(vm={"pool": "iot"})
    stage = lab.stage("create-vms", "vm.pool=iot")
    stage.apply(stage.plan())
    stage.verify()
    assert {vm.pool for vm in vms(lab).values()} == {"iot"}
    assert lab.stage("create-vms", "vm.pool=iot").plan().actions == ()
    assert lab.stage("create-vms").plan().actions == ()
    with pytest.raises(Refused, match="pool iot → other") as refused:
        lab.stage("create-vms", "vm.pool=other").plan()
    assert "pvesh set /pools/other --vms" in refused.value.remedy


def test_more_memory_is_planned_with_a_power_cycle(lab):
    stage = lab.stage("create-vms", "nodes.talos-worker-1.memory_gib=16")
    plan = stage.plan()
    assert [(a.verb, a.object) for a in plan.actions] == [("change", "vm talos-worker-1")]
    assert plan.actions[0].detail == "memory 12288 → 16384, with a power cycle"
    stage.apply(plan)
    stage.verify()
    assert vms(lab)["talos-worker-1"].config["memory"] == "16384"
    powered = [path.rsplit("/", 2)[-1] for path in lab.paths("POST")]
    assert powered == ["shutdown", "start"]


def test_nodes_are_power_cycled_one_at_a_time(lab):
    names = [node.name for node in lab.chosen.platform.nodes]
    stage = lab.stage("create-vms", *(f"nodes.{name}.cores=8" for name in names))
    plan = stage.plan()
    assert [action.needs for action in plan.actions] == [(), (f"change {names[0]}",), (f"change {names[1]}",)]
    stage.apply(plan)
    stage.verify()
    posts = [path.split("/")[-1] for path in lab.paths("POST")]
    assert posts == ["shutdown", "start"] * len(names)


def test_the_only_control_plane_is_cycled_and_answers_again_before_the_stage_ends(labs):
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    stage = lab.stage("create-vms", "nodes.talos-cp-1.memory_gib=10")
    stage.apply(stage.plan())
    assert stage.context.kube().ready()
    stage.verify()


def test_a_disk_grows_without_a_power_cycle(lab):
    setting = "nodes.talos-worker-2.data_disk_gib=120"
    stage = lab.stage("create-vms", setting)
    plan = stage.plan()
    assert "scsi1 80 GiB → 120 GiB" in plan.actions[0].detail
    stage.apply(plan)
    assert [path.rsplit("/", 1)[-1] for path in lab.paths("PUT")] == ["resize"]
    assert lab.paths("POST") == []
    assert "size=120G" in vms(lab)["talos-worker-2"].config["scsi1"]


def test_a_disk_that_would_shrink_is_refused_and_nothing_is_changed(lab):
    with pytest.raises(Refused, match=r"scsi1 .* → 40 GiB would shrink") as caught:
        lab.stage("create-vms", "nodes.talos-worker-1.data_disk_gib=40").plan()
    assert "80 GiB or more" in caught.value.remedy
    assert lab.requests(mutating=True) == []


def test_tags_of_others_stay_when_ours_are_put_back(lab):
    vm = vms(lab)["talos-cp-1"]
    lab.background.call(vm.config.update, {"tags": "fluobook;backup-nightly"})
    stage = lab.stage("create-vms", "nodes.talos-cp-1.cores=8")
    stage.apply(stage.plan())
    assert set(vm.config["tags"].split(";")) == {"fluobook", "fluobook-fluodata", "backup-nightly"}


@pytest.mark.parametrize(
    ("setting", "option", "stored"),
    [
        ("network.gateway=10.10.0.254", "ipconfig0", "gw=10.10.0.254"),
        ("network.nameservers=[9.9.9.9]", "nameserver", "9.9.9.9"),
        ("vm.agent=false", "agent", "enabled=0"),
        ("network.vlan=7", "net0", "tag=7"),
        ("vm.on_boot=false", "onboot", "0"),
    ],
)
def test_a_setting_that_was_written_at_creation_is_changed_and_stays(lab, setting, option, stored):
    stage = lab.stage("create-vms", setting)
    plan = stage.plan()
    assert [action.verb for action in plan.actions] == ["change"] * len(lab.chosen.platform.nodes)
    stage.apply(plan)
    stage.verify()
    assert all(stored in str(vm.config[option]) for vm in vms(lab).values())
    assert not any(vm.pending for vm in vms(lab).values())
    assert lab.stage("create-vms", setting).plan().actions == ()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nodes.talos-worker-1.address=10.10.0.99", "ipconfig0 ip 10.10.0.20 → 10.10.0.99"),
        ("vm.bios=seabios", "bios ovmf → seabios"),
        ("proxmox.laptop.disk_storage=local", "scsi0 storage local-lvm → local"),
    ],
)
def test_a_setting_that_cannot_change_is_refused_and_nothing_is_changed(lab, setting, message):
    with pytest.raises(Refused, match=message) as refused:
        lab.stage("create-vms", setting).plan()
    assert lab.requests(mutating=True) == []
    assert "10.10.0.99" not in refused.value.remedy  # nothing answers there yet


def test_an_address_by_dhcp_takes_the_cloud_init_drive_away(lab):
    stage = lab.stage("create-vms", "network.addressing=dhcp")
    stage.apply(stage.plan())
    stage.verify()
    assert not any({"ide0", "ipconfig0", "nameserver"} & vm.config.keys() for vm in vms(lab).values())
    assert lab.stage("create-vms", "network.addressing=dhcp").plan().actions == ()


def test_a_stopped_vm_is_started_and_nothing_else(lab):
    node = lab.chosen.platform.nodes[2]
    client = lab.context().proxmox("laptop")
    client.wait(client.stop("pve1", node.vmid), deadline=30)
    lab.mark()
    stage = lab.stage("create-vms")
    plan = stage.plan()
    assert [(a.verb, a.object, a.reason) for a in plan.actions] == [("start", f"vm {node.name}", "stopped")]
    stage.apply(plan)
    stage.verify()


def test_a_vm_of_ours_with_another_number_is_not_guessed_at(lab):
    with pytest.raises(Refused, match="and the params say 4711 on pve1") as caught:
        lab.stage("create-vms", "nodes.talos-cp-1.vmid=4711").plan()
    assert "set host: pve1 and vmid:" in caught.value.remedy
    assert lab.requests(mutating=True) == []


def test_a_vm_whose_node_is_not_in_the_params_any_more_is_named_and_left_alone(lab):
    written = lab.chosen.platform.written
    fewer = [node for node in written["nodes"] if node["name"] != "talos-worker-2"]
    chosen = params.parse({"phase": "phase1", "platform": {**written, "nodes": fewer}}, root=ROOT)
    stage = replace(lab, chosen=chosen).stage("create-vms")
    plan = stage.plan()
    assert "(talos-worker-2) on pve1 has this cluster's tag, and no node of the params is it" in plan.table().text()
    stage.apply(plan)
    stage.verify()
    assert lab.requests(mutating=True) == []
