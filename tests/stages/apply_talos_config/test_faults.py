"""Stage 2 against nodes that lose answers, fail to install, are not ours, or are just restarting."""

from __future__ import annotations

import pytest

from fluobook.clients.talos import Mode, maintenance
from fluobook.errors import ForeignObject, ParamsError, Refused, Rejected, StageMissing
from fluobook.failures import present
from fluobook.stages.apply_talos_config import documents

pytestmark = pytest.mark.lab


def configured(lab):
    return [r for r in lab.requests("talos") if r["mutating"] and r["path"].endswith("ApplyConfiguration")]


@pytest.fixture
def made(labs):
    """A lab whose VMs run; faults by name."""

    def make(*faults, **options):
        lab = labs(*faults, **options)
        lab.bring_up("create-vms")
        lab.mark()
        return lab

    return make


@pytest.mark.parametrize(
    "fault", ["talos.apply-busy-once", "talos.apply-lost-once", "talos.read-lost-once", "talos.uuid-byte-order"]
)
def test_a_passing_fault_is_survived(made, fault):
    lab = made(fault)
    lab.bring_up("apply-talos-config")
    assert not lab.stage("apply-talos-config").plan().actions


def test_a_failed_installation_is_begun_again(made):
    lab = made("talos.install-fails-once")
    lab.bring_up("apply-talos-config")
    assert len(configured(lab)) == len(lab.chosen.platform.nodes) + 1


def test_installations_that_keep_failing_end_in_an_error_that_names_the_node(made):
    lab = made(*["talos.install-fails-once"] * 20)
    stage = lab.stage("apply-talos-config")
    with pytest.raises(Rejected, match="without a configuration again after 3 installations") as caught:
        stage.apply(stage.plan())
    assert "console" in caught.value.remedy
    assert lab.paths("DELETE") == []


def test_a_machine_with_other_disks_gets_no_configuration(made):
    lab = made()
    stage = lab.stage("apply-talos-config", "nodes.talos-worker-1.boot_disk_gib=30")
    with pytest.raises(Refused, match=r"the system disk /dev/sd[ab] has 20 GiB, the params say 30") as caught:
        stage.apply(stage.plan())
    assert "vm.install_disk" in caught.value.remedy
    assert "talos talos-worker-1" not in {request["server"] for request in configured(lab)}


def test_a_vm_that_was_destroyed_and_created_again_has_empty_disks(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    node, client = lab.chosen.platform.workers[0], lab.context().proxmox("laptop")
    client.wait(client.stop(node.host, node.vmid), deadline=30)
    client.wait(client.delete(node.host, node.vmid), deadline=30)
    volumes = lab.environment.proxmox["laptop"].inventory.volumes(node.host, "local-lvm")
    assert not [volume for volume in volumes.values() if volume.vmid == node.vmid]
    lab.bring_up("create-vms")
    assert lab.context().talos.probe(node).mode is Mode.MAINTENANCE
    plan = lab.stage("apply-talos-config").plan()
    assert [(action.verb, action.object) for action in plan.actions] == [("apply", f"node {node.name}")]
    lab.bring_up("apply-talos-config")


def test_the_names_of_the_disks_do_not_matter(made):
    lab = made()
    names = {node.disks[0].name for node in lab.environment.machines.nodes.values() if len(node.disks) > 1}
    assert names, "no node has two disks"
    for seed in range(20):
        for node in lab.environment.machines.nodes.values():
            lab.environment.machines.disk_seed = seed
            lab.background.call(node.enumerate_disks)
            names.add(node.disks[0].name)
        if names == {"sda", "sdb"}:
            break
    assert names == {"sda", "sdb"}
    lab.bring_up("apply-talos-config")
    drives = {node.disk.drive for node in lab.environment.machines.nodes.values()}
    assert drives == {"scsi0"}


def test_the_bundle_is_written_once_and_never_changed(made):
    lab = made()
    bundle = lab.folder / "cluster" / "secrets.sops.yaml"
    lab.bring_up("apply-talos-config")
    first = bundle.read_bytes()
    with pytest.raises(Refused, match="exists already"):
        lab.context().secrets.create_bundle()
    lab.bring_up("apply-talos-config")
    assert bundle.read_bytes() == first


def test_a_second_run_only_reads(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    lab.mark()
    lab.bring_up("apply-talos-config")
    assert lab.requests(mutating=True) == []


def test_configured_nodes_without_the_bundle_are_refused_and_no_second_pki_is_made(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    (lab.folder / "cluster" / "secrets.sops.yaml").rename(lab.folder / "kept")
    lab.mark()
    with pytest.raises(Refused, match="no secrets bundle here"):
        lab.stage("apply-talos-config").plan()
    assert not (lab.folder / "cluster" / "secrets.sops.yaml").exists()
    assert lab.requests(mutating=True) == []


def test_nodes_of_another_cluster_are_named_and_never_touched(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    (lab.folder / "cluster" / "secrets.sops.yaml").unlink()
    lab.context().secrets.create_bundle()
    lab.mark()
    with pytest.raises(ForeignObject, match="a node of another cluster answers: talos-cp-1"):
        lab.stage("apply-talos-config").plan()
    assert lab.requests(mutating=True) == []


def test_a_machine_that_is_not_our_vm_gets_no_secret(made):
    lab = made()
    context = lab.context(nodes=[{"name": "talos-worker-1", "mac": "BC:24:11:00:00:01"}])
    stage = lab.stage("apply-talos-config", context=context)
    with pytest.raises(ForeignObject, match=r"at 10\.10\.0\.20 is not our VM talos-worker-1: it has no link") as caught:
        stage.apply(stage.plan())
    assert "no secret was sent" in caught.value.remedy
    assert "talos-worker-1" not in {r["server"].removeprefix("talos ") for r in configured(lab)}


def test_without_machines_the_missing_stage_is_named_and_nothing_is_changed(labs):
    lab = labs()
    stage = lab.stage("apply-talos-config")
    plan = stage.plan()
    assert plan.digest == ""
    with pytest.raises(StageMissing, match="is blocked: run create-vms first") as caught:
        stage.apply(plan)
    assert caught.value.remedy == "plan and apply the stage create-vms, then run apply-talos-config again"
    assert lab.requests(mutating=True) == []
    assert not (lab.folder / "cluster" / "secrets.sops.yaml").exists()


def test_a_node_that_is_just_restarting_is_waited_for(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    lab.context().talos.client(lab.chosen.platform.nodes[1], "os:admin").reboot()
    assert not lab.stage("apply-talos-config").plan().actions


def test_a_changed_patch_is_applied_to_one_node_at_a_time(made):
    lab = made()
    lab.bring_up("apply-talos-config")
    stage = lab.stage("apply-talos-config", "network.ntp=[time.google.com]")
    plan = stage.plan()
    names = [node.name for node in lab.chosen.platform.nodes]
    assert [action.needs for action in plan.actions] == [(), (f"apply {names[0]}",), (f"apply {names[1]}",)]
    assert "time.google.com" not in plan.table().text()
    stage.apply(plan)
    stage.verify()


def spoiled(monkeypatch, old, new):
    """Replace a text in every rendered configuration."""
    render = documents.node_texts

    def spoil(*given):
        return {name: text.replace(old, new) for name, text in render(*given).items()}

    monkeypatch.setattr(documents, "node_texts", spoil)


def test_a_configuration_that_contradicts_the_params_reaches_no_node(made, monkeypatch):
    spoiled(monkeypatch, "10.244.0.0/16", "10.200.0.0/16")
    lab = made()
    stage = lab.stage("apply-talos-config")
    with pytest.raises(ParamsError, match=r"podSubnets is 10\.200\.0\.0/16; the params say 10\.244"):
        stage.apply(stage.plan())
    assert configured(lab) == []


def test_a_configuration_that_talos_does_not_read_is_refused_in_its_words(made, monkeypatch):
    spoiled(monkeypatch, "diskQuotaSupport:", "diskQuotaSuport:")
    lab = made()
    stage = lab.stage("apply-talos-config")
    with pytest.raises(Rejected) as caught:
        stage.apply(stage.plan())
    assert "unknown keys found during decoding" in present(caught.value).text()
    assert "diskQuotaSuport" in present(caught.value).text()


def test_workers_are_not_waited_for_when_every_control_plane_has_failed(made, monkeypatch):
    """Talos' API on a worker needs a certificate that a control plane signs."""
    render = documents.node_texts

    def spoil(*given):
        texts = render(*given)
        return texts | {"talos-cp-1": texts["talos-cp-1"].replace("diskQuotaSupport:", "diskQuotaSuport:")}

    monkeypatch.setattr(documents, "node_texts", spoil)
    lab = made()
    stage = lab.stage("apply-talos-config")
    with pytest.raises(Rejected, match=r"apply talos-cp-1: .*unknown keys") as caught:
        stage.apply(stage.plan())
    others = caught.value.message.partition("(and 2 more failed: ")[2].rstrip(")")
    assert set(others.split(", ")) == {"apply talos-worker-1", "apply talos-worker-2"}


def test_workers_that_a_killed_run_configured_alone_answer_once_a_control_plane_does(made):
    lab = made()
    context = lab.context()
    context.secrets.create_bundle()
    workers = [node for node in context.platform.nodes if node.role == "worker"]
    for node in workers:
        with maintenance(context.talos.address(node)) as machine:
            machine.apply_configuration(documents.Configurations.of(context).text(node))
    stage = lab.stage("apply-talos-config")
    plan = stage.plan()
    assert plan.waits_for == ""
    assert [action.object for action in plan.actions] == [f"node {node.name}" for node in context.platform.nodes]
    stage.apply(plan)
    stage.verify()
    assert not lab.stage("apply-talos-config").plan().actions
