"""Whether a host has what is planned: bridges, storages, room."""

from __future__ import annotations

import pytest

from fluobook.stages.preflight.proxmox import GIB, Wanted, bridge_check, storage_checks

LOCAL = {"storage": "local", "content": "iso,vztmpl", "active": 1, "enabled": 1, "avail": 10 * GIB}
LVM = {"storage": "local-lvm", "content": "images,rootdir", "active": 1, "enabled": 1, "avail": 100 * GIB}
WANTED = Wanted("pve1", "local", "local-lvm", image_gib=0.5, disks_gib=100, shared_gib=300)


def wrong(wanted, *storages):
    return [check.result for check in storage_checks(wanted, storages) if not check.passed]


def test_disks_that_just_fit_pass():
    assert wrong(WANTED, LOCAL, LVM) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"avail": 100 * GIB - 1}, "local-lvm has 100.0 GiB free, 100 GiB are planned"),
        ({"shared": 1}, "local-lvm has 100.0 GiB free, 300 GiB are planned"),
        ({"active": 0}, "it is not active"),
        ({"enabled": 0}, "it is not active"),
        ({"content": "rootdir"}, "it accepts rootdir"),
        ({"content": ""}, "it accepts nothing"),
    ],
)
def test_an_unusable_storage_is_reported_with_the_reason(change, problem):
    assert wrong(WANTED, LOCAL, {**LVM, **change}) == [problem]


def test_one_storage_for_both_needs_room_for_both():
    both = Wanted("pve1", "tank", "tank", image_gib=0.5, disks_gib=100)
    tank = {**LVM, "storage": "tank", "content": "iso,images", "avail": 100 * GIB}
    assert wrong(both, tank) == ["tank has 100.0 GiB free, 100.5 GiB are planned"]


def test_a_storage_that_reports_no_free_space_passes():
    silent = {key: value for key, value in LVM.items() if key != "avail"}
    assert wrong(WANTED, LOCAL, silent) == []


def test_the_command_keeps_what_a_storage_accepts_already():
    (check,) = [check for check in storage_checks(WANTED, [{**LOCAL, "content": "vztmpl"}, LVM]) if not check.passed]
    assert check.remedy.startswith("pvesm set local --content vztmpl,iso")


def test_an_open_vswitch_bridge_is_a_bridge_and_a_bond_is_none():
    networks = [{"iface": "vmbr0", "type": "OVSBridge"}, {"iface": "bond0", "type": "bond"}]
    assert bridge_check("", networks, "vmbr0").passed
    assert bridge_check("", networks, "bond0").result == "listed: vmbr0"


def test_a_host_without_visible_bridges_is_reported():
    assert bridge_check("", [], "vmbr0").result == "listed: none"
