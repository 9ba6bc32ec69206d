"""The names of a node's disks, and what becomes of a configuration that names the wrong one."""

from __future__ import annotations

from random import Random

import pytest
import yaml
from fluobook_lab.talos.disks import enumerate_disks, matching

from fluobook.clients.talos import maintenance
from fluobook.clients.talos.resources import DISKS, VOLUMES

DRIVES = (("scsi0", 20), ("scsi1", 80))


def names(seed, drives=DRIVES):
    return {disk.drive: disk.name for disk in enumerate_disks(drives, Random(seed))}


def test_scsi_disks_are_named_in_either_order_by_seed():
    orders = {tuple(names(seed).values()) for seed in range(20)}
    assert orders == {("sda", "sdb"), ("sdb", "sda")}
    assert names(7) == names(7)


def test_virtio_disks_keep_their_order():
    assert {tuple(names(seed, (("virtio0", 20), ("virtio1", 80))).values()) for seed in range(20)} == {("vda", "vdb")}


@pytest.mark.parametrize(
    ("expression", "drives"),
    [
        ("!system_disk", ["scsi1"]),
        ("system_disk", ["scsi0"]),
        ('!system_disk && glob("*/virtio*/host*/target*:0:0/*:0:0:1", disk.bus_path)', ["scsi1"]),
        ("disk.size > 50u * GB", ["scsi1"]),
        ("disk.size <= 20u * GiB || disk.transport == 'nvme'", ["scsi0"]),
        ("disk.serial == 'boot'", []),
        ("!disk.readonly && disk.rotational != true", ["scsi0", "scsi1"]),
    ],
)
def test_a_cel_expression_selects_disks(expression, drives):
    disks = enumerate_disks(DRIVES, Random(1))
    assert [disk.drive for disk in matching(expression, disks, "scsi0")] == drives


@pytest.mark.parametrize("expression", ["disk.size >", "other_disk", "disk.size.foo()", "__import__('os')"])
def test_an_expression_that_cel_would_refuse_is_an_error(expression):
    with pytest.raises(ValueError, match="expression"):
        matching(expression, enumerate_disks(DRIVES, Random(1)), "scsi0")


def test_a_node_installed_on_the_wrong_disk_never_comes_back(lab):
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    node = maintenance(lab.address())
    data = next(disk.spec["dev_path"] for disk in node.list(DISKS) if disk.spec["size"] == 80 * 2**30)
    node.apply_configuration(lab.controlplane(install={"disk": data}))
    lab.wait(lambda: lab.do(lambda: lab.machines.node("cp-1").disk.drive == "scsi1"))
    lab.wait(lambda: lab.do(lambda: lab.machines.node("cp-1").boots) == 2)
    lab.wait_mode("unreachable")
    assert lab.do(lambda: lab.machines.node("cp-1").services) == {}


def test_a_volume_that_only_the_system_disk_matches_fails(lab):
    provisioning = {"diskSelector": {"match": "system_disk"}, "minSize": "1GiB"}
    small = {"diskSelector": {"match": "!system_disk"}, "minSize": "100GiB"}
    kind = {"apiVersion": "v1alpha1", "kind": "UserVolumeConfig"}
    volumes = [{**kind, "name": "a", "provisioning": provisioning}, {**kind, "name": "b", "provisioning": small}]
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    maintenance(lab.address()).apply_configuration(lab.controlplane() + "---\n" + yaml.safe_dump_all(volumes))
    lab.wait(lambda: lab.do(lambda: lab.machines.node("cp-1").boots) == 2)
    node = lab.wait(lambda: lab.connect() if lab.probe().mode.value == "configured" else None)

    def errors():
        found = {item.id: item.spec.get("errorMessage") for item in node.list(VOLUMES)}
        return [found.get(name) for name in ("u-a", "u-b")]

    lab.wait(lambda: errors() == ["not enough space"] * 2)
