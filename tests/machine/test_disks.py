"""Which disks Talos selects, and whether a machine has the disks of its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook import params
from fluobook.machine.disks import GIB, SYSTEM, bytes_of, install_disk, mismatches, selected

PLATFORM = params.load("phase1", root=Path(__file__).parents[2]).platform
WORKER, CONTROL_PLANE = PLATFORM.workers[0], PLATFORM.control_planes[0]
INSTALL = install_disk(PLATFORM)


def disk(name: str, gib: float, unit: int = 0, **fields: Any) -> dict[str, Any]:
    path = f"/pci0000:00/0000:00:05.0/virtio3/host6/target6:0:0/6:0:0:{unit}"
    return {"dev_path": f"/dev/{name}", "size": int(gib * GIB), "transport": "virtio", "bus_path": path, **fields}


AHCI = "/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0"
CDROM = disk("sr0", 0.3, transport="sata", bus_path=AHCI, cdrom=True, readonly=True)
CLOUD_INIT = disk("sr1", 0, transport="sata", bus_path=AHCI, cdrom=True, readonly=True)
LOOP = disk("loop0", 0.1, transport="", bus_path="/virtual", readonly=True)
BOOT, DATA = disk("sda", WORKER.boot_disk_gib), disk("sdb", WORKER.data_disk_gib or 0, 1)


@pytest.mark.parametrize(
    ("install", "disks", "paths"),
    [
        (INSTALL, [BOOT, DATA, CDROM, CLOUD_INIT, LOOP], ["/dev/sda"]),
        (INSTALL, [disk("sdb", 20), disk("sda", 80, 1), CDROM], ["/dev/sdb"]),
        (INSTALL, [disk("sda", 80, 10)], []),
        ({"disk": "/dev/sdb"}, [BOOT, DATA], ["/dev/sdb"]),
        ({"disk": "/dev/sdb", "diskSelector": {"busPath": SYSTEM}}, [BOOT, DATA], ["/dev/sda"]),
        ({"diskSelector": {"serial": "boot"}}, [BOOT, DATA], []),
        ({"diskSelector": {"size": ">= 50GiB"}}, [BOOT, DATA], ["/dev/sdb"]),
        ({"diskSelector": {"size": "<= 50GB", "type": "ssd"}}, [BOOT, DATA], ["/dev/sda"]),
        ({"diskSelector": {"type": "nvme"}}, [BOOT, DATA], []),
        ({"diskSelector": {"wwid": "naa.5*"}}, [BOOT, disk("sdb", 80, 1, wwid="naa.5000")], ["/dev/sdb"]),
    ],
)
def test_a_disk_is_selected_as_talos_does(
    install: dict[str, Any], disks: list[dict[str, Any]], paths: list[str]
) -> None:
    assert [match["dev_path"] for match in selected(install, disks)] == paths


@pytest.mark.parametrize(
    ("install", "disks", "problems"),
    [
        (INSTALL, [BOOT, DATA, CDROM, CLOUD_INIT, LOOP], []),
        (INSTALL, [disk("sdb", 20), disk("sda", 80, 1)], []),
        (INSTALL, [BOOT, DATA, disk("sdc", 500, 2)], []),
        (INSTALL, [disk("sda", 80), disk("sdb", 20, 1)], ["the system disk /dev/sda has 80", "the data disk /dev/sdb"]),
        (INSTALL, [BOOT], ["0 disks match the data disk; it has /dev/sda (20 GiB)"]),
        (INSTALL, [DATA], ["0 disks match the system disk; it has /dev/sdb (80 GiB)"]),
        (INSTALL, [CDROM], ["0 disks match the system disk; it has no disk", "0 disks match the data disk"]),
        (INSTALL, [BOOT, disk("sdc", 20), DATA], ["2 disks match the system disk"]),
        ({"disk": "/dev/sdb"}, [BOOT, DATA], ["the system disk /dev/sdb has 80", "the data disk /dev/sda has 20"]),
        ({"disk": "/dev/vda"}, [disk("vda", 20), disk("vdb", 80, 1)], []),
        (INSTALL, [disk("sda", 20.001), DATA], []),
    ],
)
def test_a_machine_with_other_disks_than_its_nodes_is_recognised(
    install: dict[str, Any], disks: list[dict[str, Any]], problems: list[str]
) -> None:
    observed = list(mismatches(WORKER, install, disks))
    assert len(observed) == len(problems)
    assert all(text.startswith(problem) for text, problem in zip(observed, problems, strict=True))


def test_a_node_without_a_data_disk_needs_the_system_disk_alone() -> None:
    assert list(mismatches(CONTROL_PLANE, INSTALL, [disk("sda", CONTROL_PLANE.boot_disk_gib)])) == []


@pytest.mark.parametrize(
    ("text", "size"), [("20GiB", 20 * GIB), ("4 GB", 4 * 10**9), ("77824MiB", 77824 * 2**20), ("100", 100), ("big", 0)]
)
def test_a_size_is_read_as_talos_writes_it(text: str, size: int) -> None:
    assert bytes_of(text) == size
