import pytest
from fluobook_lab.proxmox.model import Host, Vm
from fluobook_lab.proxmox.options import PveError, bytes_of, parse, parse_net, render, render_net, size_of, sorted_tags
from fluobook_lab.proxmox.power import boot_of
from hypothesis import given
from hypothesis import strategies as st

UUID = "6e1b0f3c-2a55-5b9c-8f55-0a7a0f2a1b3c"


@given(st.integers(min_value=1, max_value=2**50))
def test_a_size_survives_rendering_and_parsing(size):
    assert bytes_of(size_of(size)) == size


@pytest.mark.parametrize(
    ("size", "shown"), [(20 * 1024**3, "20G"), (528 * 1024, "528K"), (1024**4, "1T"), (1000, "1000")]
)
def test_a_size_is_shown_in_the_largest_whole_unit(size, shown):
    assert size_of(size) == shown


@pytest.mark.parametrize("size", ["", "20GB", "x", "-1G"])
def test_an_invalid_size_is_refused(size):
    with pytest.raises(PveError, match="Parameter verification failed"):
        bytes_of(size)


def test_a_property_string_has_its_default_key_first_and_the_rest_in_order():
    assert render(parse("local-lvm:20,ssd=1,discard=on", "file"), "file") == "local-lvm:20,discard=on,ssd=1"


@pytest.mark.parametrize(
    "value", ["virtio=BC:24:11:00:01:20,bridge=vmbr0", "model=virtio,macaddr=BC:24:11:00:01:20,bridge=vmbr0"]
)
def test_both_forms_of_a_network_device_are_equal(value):
    assert render_net(*parse_net(value)) == "virtio=BC:24:11:00:01:20,bridge=vmbr0"


def test_tags_are_unique_and_sorted():
    assert sorted_tags("worker;Fluobook,worker") == "fluobook;worker"


def test_a_vm_without_a_cloud_init_drive_has_neither_address_nor_hostname():
    vm = Vm(1, "pve1", {"name": "a", "smbios1": f"uuid={UUID}", "ipconfig0": "ip=10.0.0.1/24,gw=10.0.0.254"})
    boot = boot_of(vm, Host("pve1"))
    assert (boot.address, boot.gateway, boot.hostname, boot.uuid) == ("", "", "", UUID)


def test_disks_are_in_bus_order_without_cdroms():
    config = {
        "scsi10": "l:a,size=3G",
        "scsi2": "l:b,size=2G",
        "virtio0": "l:c,size=1G",
        "efidisk0": "l:d,size=4M",
        "ide2": "local:iso/t.iso,media=cdrom,size=100M",
        "ide0": "l:vm-1-cloudinit,media=cdrom",
        "ipconfig0": "ip=dhcp",
    }
    boot = boot_of(Vm(1, "pve1", config), Host("pve1"))
    assert boot.disks == (("scsi2", 2), ("scsi10", 3), ("virtio0", 1))
    assert (boot.image, boot.address, boot.hostname) == ("t.iso", "", "VM 1")


@pytest.mark.parametrize(
    ("cpu", "present"),
    [({"cpu": "host"}, True), ({"cpu": "cputype=host,flags=+aes"}, True), ({"cpu": "EPYC"}, True)]
    + [({"cpu": level}, False) for level in ("x86-64-v2-AES", "x86-64-v3", "x86-64-v4")]
    + [({}, False)],
)
def test_a_guest_has_the_cpu_features_of_its_cpu_type(cpu, present):
    assert ("pclmulqdq" in boot_of(Vm(1, "pve1", cpu), Host("pve1")).cpu_features) is present
    assert "pclmulqdq" not in boot_of(Vm(1, "pve1", cpu), Host("pve1", cpu_features=frozenset())).cpu_features
