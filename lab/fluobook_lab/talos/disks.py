"""The disks of a node under the names that the kernel gives them, and the CEL expressions that select them."""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from fluobook.machine.disks import GIB, glob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

_UNITS = {f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTPE", 1)}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", 1)}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Disk:
    """A disk: the drive of the VM ("scsi0"), its name for this boot ("sdb"), its size."""

    drive: str
    name: str
    gib: int

    @property
    def path(self) -> str:
        """The device."""
        return f"/dev/{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of its resource. Talos reads no serial number of a SCSI disk."""
        bus, unit = _bus_and_unit(self.drive)
        paths = {"scsi": f"virtio3/host2/target2:0:0/2:0:0:{unit}", "virtio": f"virtio{8 + unit}"}
        return {
            "dev_path": self.path,
            "size": self.gib * GIB,
            "pretty_size": f"{self.gib * GIB / 1e9:.0f} GB",
            "io_size": 512,
            "sector_size": 512,
            "readonly": False,
            "cdrom": False,
            "model": "QEMU HARDDISK" if bus != "virtio" else "",
            "bus_path": "/pci0000:00/" + paths.get(bus, f"ata{unit}/host{unit}/target{unit}:0:0/{unit}:0:0:0"),
            "sub_system": "/sys/class/block",
            "transport": "virtio" if bus in paths else "sata",
        }


def _bus_and_unit(drive: str) -> tuple[str, int]:
    bus = drive.rstrip("0123456789")
    return bus, int(drive.removeprefix(bus))


def enumerate_disks(drives: Sequence[tuple[str, int]], random: Random) -> tuple[Disk, ...]:
    """A machine's disks, in the order of its drives; which SCSI disk is sda differs from boot to boot."""
    virtual = [drive for drive, _ in drives if drive.startswith("virtio")]
    others = [drive for drive, _ in drives if drive not in virtual]
    random.shuffle(others)
    names = {drive: f"vd{letter}" for drive, letter in zip(virtual, ascii_lowercase, strict=False)}
    names |= {drive: f"sd{letter}" for drive, letter in zip(others, ascii_lowercase, strict=False)}
    return tuple(Disk(drive, names[drive], gib) for drive, gib in drives)


def matching(expression: str, disks: Sequence[Disk], system: str) -> list[Disk]:
    """The disks for which a CEL expression is true; `system` is the drive of the system disk.

    Raises:
        ValueError: the expression is none, or uses what the lab does not know.
    """
    text = re.sub(r"\b(\d+)u\b", r"\1", expression).replace("&&", " and ").replace("||", " or ")
    text = re.sub(r"!(?!=)", " not ", text).strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ValueError(f"invalid CEL expression: {expression}") from None
    return [disk for disk in disks if _value(tree, {**_UNITS, "disk": disk.spec, "system_disk": disk.drive == system})]


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:  # noqa: C901, PLR0911 (a case for each expression)
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_value(value, names) for value in node.values)
        case ast.BoolOp():
            return any(_value(value, names) for value in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, names)
        case ast.Compare(ops=[compare]) if type(compare) in _COMPARISONS:
            return _COMPARISONS[type(compare)](_value(node.left, names), _value(node.comparators[0], names))
        case ast.BinOp(op=ast.Mult()):
            return _value(node.left, names) * _value(node.right, names)
        case ast.Call(func=ast.Name(id="glob"), args=[pattern, text]):
            return glob(_value(pattern, names), _value(text, names))
        case ast.Attribute(value=ast.Name(id="disk")):
            return names["disk"].get(node.attr, "" if node.attr != "rotational" else False)
        case ast.Name() if node.id in names:
            return names[node.id]
        case ast.Name(id="true" | "false"):
            return node.id == "true"
        case ast.Constant():
            return node.value
    raise ValueError(f"undeclared reference or unsupported expression: {ast.unparse(node)}")
