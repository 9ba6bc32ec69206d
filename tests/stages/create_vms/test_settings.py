"""Every setting that is written at creation, and what happens when it differs from the params."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook import params
from fluobook.errors import Refused
from fluobook.machine.schematic import Image
from fluobook.params import overlay
from fluobook.stages.create_vms.plan import Observation, ObservedVM, plan
from fluobook.stages.create_vms.settings import (
    CYCLE,
    GROW,
    IDENTITY,
    IGNORED,
    LIVE,
    MOVE,
    REPLACE,
    TREATMENT,
    create_params,
    differing,
    disks,
    property_string,
    update,
)

PLATFORM = params.load(
    "phase1", overrides=["nodes.talos-worker-1.start_order=2"], root=Path(__file__).parents[3]
).platform
WORKER = PLATFORM.workers[0]


def created(platform=PLATFORM, node=WORKER, **config):
    """The configuration that Proxmox VE returns for the VM as it was created."""
    sent = create_params(platform, node, "talos.iso")
    for disk, size in disks(node).items():
        options = sent[disk].partition(",")[2]
        sent[disk] = f"local-lvm:vm-1-disk-{disk[-1]},{options},size={size}G"
    if "ide0" in sent:
        sent["ide0"] = "local-lvm:vm-1-cloudinit,media=cdrom"
    if "efidisk0" in sent:
        sent["efidisk0"] = "local-lvm:vm-1-disk-9,efitype=4m,pre-enrolled-keys=0,size=4M"
    return {**{name: str(value) for name, value in sent.items()}, **config}


def with_settings(**settings):
    return overlay(PLATFORM, settings)


VARIANTS = [
    PLATFORM,
    with_settings(vm={"bios": "seabios"}),
    with_settings(network={"addressing": "dhcp"}),
    with_settings(network={"vlan": 42, "mtu": 9000}),
    with_settings(vm={"tags": ["prod", "team-iot"], "pool": "iot"}),
]


@pytest.mark.parametrize("platform", VARIANTS)
def test_every_option_that_is_written_at_creation_has_a_treatment(platform):
    for option, value in create_params(platform, WORKER, "talos.iso").items():
        assert option in TREATMENT, f"{option} is written and has no treatment"
        parts = set(property_string(option, str(value)))
        assert "" in TREATMENT[option] or parts - {"", "model"} <= set(TREATMENT[option]), f"{option}: {parts}"


@pytest.mark.parametrize("platform", VARIANTS)
def test_a_vm_as_it_was_created_does_not_differ(platform):
    assert list(differing(platform, WORKER, created(platform))) == []


NET = f"virtio={WORKER.mac},bridge=vmbr0,firewall=0"
DISK = "local-lvm:vm-1-disk-0,discard=on,ssd=1,size=20G"
CHANGED = [
    ("name", "", "other", LIVE),
    ("onboot", "", "0", LIVE),
    ("startup", "order", "order=9,up=30", LIVE),
    ("tags", "", "fluobook", LIVE),
    ("ostype", "", "other", LIVE),
    ("boot", "", "order=net0", LIVE),
    ("nameserver", "", "9.9.9.9", LIVE),
    ("cores", "", "1", CYCLE),
    ("sockets", "", "2", CYCLE),
    ("memory", "", "1024", CYCLE),
    ("balloon", "", "1024", CYCLE),
    ("cpu", "", "kvm64", CYCLE),
    ("machine", "", "pc", CYCLE),
    ("scsihw", "", "lsi", CYCLE),
    ("serial0", "", "/dev/ttyS0", CYCLE),
    ("agent", "enabled", "enabled=0", CYCLE),
    ("net0", "virtio", NET.replace(WORKER.mac, "BC:24:11:00:00:01"), CYCLE),
    ("net0", "bridge", NET.replace("vmbr0", "vmbr9"), CYCLE),
    ("net0", "tag", f"{NET},tag=7", CYCLE),
    ("net0", "mtu", f"{NET},mtu=9000", CYCLE),
    ("net0", "firewall", NET.replace("firewall=0", "firewall=1"), CYCLE),
    ("ide0", "", "other:vm-1-cloudinit,media=cdrom", CYCLE),
    ("ipconfig0", "ip", "ip=10.10.0.99/24,gw=10.10.0.1", REPLACE),
    ("ipconfig0", "prefix", f"ip={WORKER.address}/16,gw=10.10.0.1", CYCLE),
    ("ipconfig0", "gw", f"ip={WORKER.address}/24,gw=10.10.0.254", CYCLE),
    *(
        (disk, part, value, treatment)
        for disk, size in (("scsi0", "20G"), ("scsi1", "80G"))
        for part, value, treatment in (
            ("size", f"local-lvm:vm-1-disk-0,discard=on,ssd=1,size={size[0]}G", GROW),
            ("storage", f"tank:vm-1-disk-0,discard=on,ssd=1,size={size}", MOVE),
            ("discard", f"local-lvm:vm-1-disk-0,ssd=1,size={size}", CYCLE),
            ("ssd", f"local-lvm:vm-1-disk-0,discard=on,size={size}", CYCLE),
        )
    ),
    ("efidisk0", "storage", "tank:vm-1-disk-9,efitype=4m,pre-enrolled-keys=0,size=4M", MOVE),
    ("efidisk0", "efitype", "local-lvm:vm-1-disk-9,size=4M", REPLACE),
    ("efidisk0", "pre-enrolled-keys", "local-lvm:vm-1-disk-9,efitype=4m,pre-enrolled-keys=1,size=4M", REPLACE),
    ("bios", "", "seabios", REPLACE),
]


@pytest.mark.parametrize(("option", "part", "value", "treatment"), CHANGED)
def test_a_setting_that_differs_is_recognised(option, part, value, treatment):
    (difference,) = differing(PLATFORM, WORKER, created(**{option: value}))
    assert (difference.option, difference.part, difference.treatment) == (option, part, treatment)


def test_each_compared_part_is_in_that_table():
    compared = {
        (option, part, treatment)
        for option, parts in TREATMENT.items()
        for part, treatment in parts.items()
        if treatment not in (IDENTITY, IGNORED)
    }
    assert {(option, part, treatment) for option, part, _, treatment in CHANGED} == compared


@pytest.mark.parametrize(
    "config",
    [
        {"net0": NET.replace(WORKER.mac, WORKER.mac.lower()) + ",queues=4,rate=100"},
        {"scsi0": DISK + ",backup=0,cache=none"},
        {"agent": "1,fstrim_cloned_disks=1"},
        {"machine": "pc-q35-9.2+pve1"},
        {"cpu": f"cputype={PLATFORM.vm.cpu}"},
        {"nameserver": ",".join(map(str, PLATFORM.network.nameservers))},
        {
            "description": "a note",
            "protection": "1",
            "scsi5": "tank:vm-1-disk-7,size=4T",
            "net1": "virtio,bridge=vmbr1",
        },
        {"ide2": "none,media=cdrom"},
    ],
)
def test_what_an_administrator_has_added_is_no_difference(config):
    assert list(differing(PLATFORM, WORKER, created(**config))) == []


def test_a_change_keeps_what_an_administrator_has_added():
    config = created(
        net0=NET.replace("vmbr0", "vmbr9") + ",tag=7,rate=100", agent="1,type=isa", scsi0=DISK + ",backup=0"
    )
    platform = with_settings(vm={"agent": False})
    changes, removed = update(platform, WORKER, config, ["net0", "agent", "scsi0", "running"])
    assert property_string("net0", changes["net0"]) == property_string("net0", NET + ",rate=100")
    assert property_string("agent", changes["agent"]) == {"enabled": "0", "type": "isa"}
    assert "scsi0" not in changes
    assert removed == []


@pytest.mark.parametrize(
    ("before", "after", "changed", "removed"),
    [
        (PLATFORM, VARIANTS[2], set(), ["ide0", "ipconfig0", "nameserver"]),
        (VARIANTS[2], PLATFORM, {"ide0", "ipconfig0", "nameserver"}, []),
    ],
)
def test_the_source_of_the_address_is_changed_with_a_power_cycle(before, after, changed, removed):
    config = created(before)
    differences = list(differing(after, WORKER, config))
    assert {difference.treatment for difference in differences} == {CYCLE}
    options = list(dict.fromkeys(difference.option for difference in differences))
    changes, gone = update(after, WORKER, config, options)
    assert (set(changes), sorted(gone)) == (changed, removed)


def test_another_address_by_dhcp_is_still_another_address():
    nodes = [{"name": WORKER.name, "address": "10.10.0.77"}]
    platform = with_settings(network={"addressing": "dhcp"}, nodes=nodes)
    differences = list(differing(platform, platform.node(WORKER.name), created()))
    assert [d.part for d in differences if d.treatment is REPLACE] == ["ip"]


def planned(platform, **config):
    vms = {}
    for node in platform.nodes:
        line = {"vmid": node.vmid, "name": node.name, "node": node.host, "status": "running", "type": "qemu"}
        own = config if node.name == WORKER.name else {}
        vms[node.name] = [ObservedVM(line, created(node=PLATFORM.node(node.name), **own))]
    return plan(platform, Observation(Image("1.13.9", "0" * 64), frozenset(platform.hosts), vms))


@pytest.mark.parametrize(
    ("settings", "message", "remedy"),
    [
        (
            {"nodes": [{"name": WORKER.name, "address": "10.10.0.99"}]},
            f"ipconfig0 ip {WORKER.address} →",
            "replace the",
        ),
        ({"vm": {"bios": "seabios"}}, "bios ovmf → seabios", "replace the node"),
        ({"proxmox": [{"name": "laptop", "disk_storage": "tank"}]}, "scsi0 storage local-lvm → tank", "qm disk move"),
        (
            {"nodes": [{"name": WORKER.name, "data_disk_gib": 40}]},
            "scsi1 80 GiB → 40 GiB would shrink",
            "80 GiB or more",
        ),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused_with_the_way_to_do_it(settings, message, remedy):
    with pytest.raises(Refused) as caught:
        planned(with_settings(**settings))
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"network": {"gateway": "10.10.0.254"}}, "ipconfig0 gw 10.10.0.1 → 10.10.0.254, with a power cycle"),
        ({"network": {"nameservers": ["9.9.9.9"]}}, "nameserver 10.10.0.1 1.1.1.1 → 9.9.9.9"),
        ({"vm": {"agent": False}}, "agent enabled 1 → 0, with a power cycle"),
        ({"vm": {"on_boot": False}}, "onboot 1 → 0"),
    ],
)
def test_what_can_be_changed_is_planned_for_every_node(settings, detail):
    actions = planned(with_settings(**settings)).actions
    assert [action.detail for action in actions] == [detail] * len(PLATFORM.nodes)


def test_the_first_in_the_order_of_start_is_0():
    platform = with_settings(nodes=[{"name": WORKER.name, "start_order": 0}])
    assert create_params(platform, platform.node(WORKER.name), "talos.iso")["startup"] == "order=0"
    assert "startup" not in create_params(platform, platform.control_planes[0], "talos.iso")
