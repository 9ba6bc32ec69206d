"""The disks of a node: how Talos selects them, and whether they are those that the params describe.

The kernel names SCSI disks (sda, sdb) in the order in which they answer, which can differ from boot to boot. Talos
reads no serial number of a SCSI disk (siderolabs/talos#12073), so the bus path identifies it: Proxmox VE attaches
scsi0 as unit 0 and scsi1 as unit 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fluobook.params import Node, Platform

GIB = 2**30
SYSTEM, DATA = ("*/virtio*/host*/target*:0:0/*:0:0:0", "*/virtio*/host*/target*:0:0/*:0:0:1")
"""The bus paths of scsi0, where Talos is installed, and scsi1, Longhorn's, as Talos' globs."""

_GLOBS = {name: name for name in ("model", "modalias", "serial", "uuid", "wwid")} | {"busPath": "bus_path"}
_COMPARISONS = {
    "": operator.eq,
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PREFIXES = " KMGTPE"

Disk = Mapping[str, Any]
"""The spec of a node's resource `Disks.block.talos.dev`."""


def install_disk(platform: Platform) -> dict[str, Any]:
    """The part of `machine.install` that selects the system disk."""
    path = platform.vm.install_disk
    return {"disk": path} if path else {"diskSelector": {"busPath": SYSTEM}}


def data_disk(platform: Platform) -> str:
    """The CEL expression that selects the disk of Longhorn's volume."""
    if platform.vm.install_disk:
        # The cloud-init drive and the installer's ISO are disks too.
        return "!system_disk && !disk.readonly && !disk.cdrom"
    return f'!system_disk && glob("{DATA}", disk.bus_path)'


def selected(install: Mapping[str, Any], disks: Iterable[Disk]) -> list[Disk]:
    """The disks that match `machine.install`, by Talos' rules: a selector has priority over a path."""
    if not (selector := install.get("diskSelector")):
        return [disk for disk in disks if disk.get("dev_path") == install.get("disk")]
    return [disk for disk in disks if _matches(selector, disk)]


def _matches(selector: Mapping[str, Any], disk: Disk) -> bool:
    if disk.get("readonly") or disk.get("cdrom") or not disk.get("transport"):
        return False
    kinds = {"nvme": disk["transport"] == "nvme", "sd": disk["transport"] == "mmc"}
    kinds |= {"hdd": bool(disk.get("rotational")), "ssd": not disk.get("rotational")}
    if selector.get("type") and not kinds.get(selector["type"]):
        return False
    if size := selector.get("size"):
        comparison, number = re.fullmatch(r"\s*([<>=]*)\s*(.*)", str(size)).groups()  # type: ignore[union-attr]
        if comparison not in _COMPARISONS or not _COMPARISONS[comparison](disk["size"], bytes_of(number)):
            return False
    return all(glob(str(selector[key]), str(disk.get(name, ""))) for key, name in _GLOBS.items() if selector.get(key))


def glob(pattern: str, text: str) -> bool:
    """Whether Talos' `glob(pattern, text)` is true: `*` stands for any characters."""
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL))


def bytes_of(size: str) -> int:
    """A size such as "20GiB", "4 GB" or "100" in bytes; 0 if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)(i?)B?", size.strip(), re.IGNORECASE)
    if not match:
        return 0
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _PREFIXES.index(prefix.upper() or " "))


def mismatches(node: Node, install: Mapping[str, Any], disks: Sequence[Disk]) -> Iterator[str]:
    """How a machine's disks differ from those of its node, before Talos is installed on one of them.

    Args:
        node: the node.
        install: `machine.install` of its configuration.
        disks: the machine's disks.
    """
    writable = [disk for disk in disks if disk.get("transport") and not disk.get("readonly") and not disk.get("cdrom")]
    system = selected(install, writable)
    yield from _mismatch("the system disk", "boot_disk_gib", node.boot_disk_gib, system, writable)
    if node.data_disk_gib:
        by_path = not install.get("diskSelector")
        data = [disk for disk in writable if (disk not in system if by_path else glob(DATA, disk.get("bus_path", "")))]
        yield from _mismatch("the data disk", "data_disk_gib", node.data_disk_gib, data, writable)


def _mismatch(name: str, field: str, gib: int, matching: Sequence[Disk], disks: Sequence[Disk]) -> Iterator[str]:
    listed = ", ".join(f"{disk.get('dev_path')} ({disk['size'] / GIB:g} GiB)" for disk in disks) or "no disk"
    if len(matching) != 1:
        yield f"{len(matching)} disks match {name}; it has {listed}"
    elif round(matching[0]["size"] / GIB) != gib:
        size = matching[0]["size"] / GIB
        yield f"{name} {matching[0].get('dev_path')} has {size:g} GiB, the params say {gib} ({field})"
