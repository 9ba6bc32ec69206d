"""The options of a virtual machine: which exist, what their values must be, and how Proxmox VE reads them back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluobook_lab.proxmox.errors import PveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DRIVE = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[12]?\d|30)|virtio(?:1[0-5]|\d)|efidisk0|tpmstate0)")
NET = re.compile(r"net(?:[12]?\d|3[01])")
NEW_DISK = re.compile(r"(?:(?P<storage>[A-Za-z][\w.-]*):)(?P<gib>\d+(?:\.\d+)?)")
DEFAULT_KEYS = {"net": "model", "drive": "file"}
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Option:
    """What a value must be: a kind (integer, boolean, string), a range, an enumeration or a pattern."""

    kind: str = "string"
    least: int | None = None
    most: int | None = None
    enum: tuple[str, ...] = ()
    pattern: str = ""

    def problem(self, value: str) -> str:
        """What is wrong with a value, in Proxmox VE's words; "" if nothing is."""
        return next((text for text in self._problems(value) if text), "")

    def _problems(self, value: str) -> Iterator[str]:
        kinds = {"integer": r"[+-]?\d+", "boolean": r"[01]"}
        if not re.fullmatch(kinds.get(self.kind, ".*"), value, re.DOTALL):
            yield f"type check ('{self.kind}') failed - got '{value}'"
        if self.least is not None and int(value) < self.least:
            yield f"value must have a minimum value of {self.least}"
        if self.most is not None and int(value) > self.most:
            yield f"value must have a maximum value of {self.most}"
        if self.enum and value not in self.enum:
            yield f"value '{value}' does not have a value in the enumeration '{', '.join(self.enum)}'"
        if self.pattern and not re.fullmatch(self.pattern, value):
            yield "value does not match the regex pattern"


_FLAG = Option("boolean")
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
OPTIONS: dict[str, Option] = {
    "acpi": _FLAG,
    "agent": Option(),
    "arch": Option(enum=("x86_64", "aarch64")),
    "args": Option(),
    "balloon": Option("integer", least=0),
    "bios": Option(enum=("seabios", "ovmf")),
    "boot": Option(),
    "cicustom": Option(),
    "citype": Option(enum=("configdrive2", "nocloud", "opennebula")),
    "ciuser": Option(),
    "cipassword": Option(),
    "ciupgrade": _FLAG,
    "cores": Option("integer", least=1),
    "cpu": Option(),
    "cpulimit": Option(),
    "cpuunits": Option("integer", least=1, most=262144),
    "description": Option(),
    "hookscript": Option(),
    "hotplug": Option(),
    "kvm": _FLAG,
    "localtime": _FLAG,
    "machine": Option(),
    "memory": Option("integer", least=16),
    "name": Option(pattern=rf"{_LABEL}(?:\.{_LABEL})*"),
    "nameserver": Option(),
    "numa": _FLAG,
    "onboot": _FLAG,
    "ostype": Option(enum=("other", "win10", "win11", "l24", "l26", "solaris")),
    "protection": _FLAG,
    "reboot": _FLAG,
    "rng0": Option(),
    "scsihw": Option(enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "searchdomain": Option(),
    "smbios1": Option(pattern=rf"(?:uuid={_UUID}|[a-z0-9]+=[^,]*)(?:,[a-z0-9]+=[^,]*)*"),
    "sockets": Option("integer", least=1),
    "sshkeys": Option(),
    "startup": Option(),
    "tablet": _FLAG,
    "tags": Option(pattern=r"[A-Za-z0-9_][A-Za-z0-9_+.-]*(?:[;, ][A-Za-z0-9_][A-Za-z0-9_+.-]*)*"),
    "template": _FLAG,
    "vcpus": Option("integer", least=1),
    "vga": Option(),
    "vmgenid": Option(),
}
_NUMBERED = re.compile(r"(?:ipconfig|serial|usb|hostpci|numa|parallel|unused|virtiofs)\d+")
_INTEGERS = frozenset(name for name, option in OPTIONS.items() if option.kind != "string" and name != "memory")
CREATE_ONLY = frozenset({"vmid", "start", "pool", "storage", "force", "unique", "archive", "bwlimit", "ha-managed"})
UPDATE_ONLY = frozenset({"digest", "delete", "revert", "force", "background_delay", "skiplock"})


def validate(params: Mapping[str, str], *, also: frozenset[str]) -> None:
    """Check parameters as Proxmox VE's schema does.

    Raises:
        PveError: 400, with what is wrong with each parameter.
    """
    problems = {name: text for name, value in params.items() if (text := _problem(name, value, also))}
    if problems:
        raise PveError(400, "Parameter verification failed.", problems)


def _problem(name: str, value: str, also: frozenset[str]) -> str:
    if name in also or _NUMBERED.fullmatch(name):
        return ""
    if NET.fullmatch(name):
        return _net_problem(name, value)
    if DRIVE.fullmatch(name):
        named = "=" in value.partition(",")[0].removeprefix("file=")
        return f"{_FORMAT}\n{name}.file: property is missing and it is not optional" if named or not value else ""
    if name == "memory":
        problem = OPTIONS[name].problem(value)
        return problem and f"{_FORMAT}\nmemory.current: {problem}"
    return OPTIONS[name].problem(value) if name in OPTIONS else _UNKNOWN


_FORMAT = "invalid format - format error"
_UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
_MODELS = ("e1000", "e1000e", "rtl8139", "virtio", "vmxnet3")


def _net_problem(name: str, value: str) -> str:
    net = parse(value, "model")
    model = next((known for known in _MODELS if known in net), net.get("model", ""))
    mac = net.get(model) or net.get("macaddr")
    if model not in _MODELS:
        return f"{_FORMAT}\n{name}.model: property is missing and it is not optional"
    if mac and not re.fullmatch(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}", mac):
        return f"{_FORMAT}\n{name}.macaddr: invalid format - value does not look like a valid unicast MAC address"
    return ""


def parse(value: str, default_key: str) -> dict[str, str]:
    """A property string (`a,b=c`) as a mapping; the part without a key has the default key."""
    pairs = (part.partition("=") for part in value.split(",") if part)
    return {key if sep else default_key: text if sep else key for key, sep, text in pairs}


def render(properties: Mapping[str, str], default_key: str) -> str:
    """The property string: the default key's value first, then the others by name."""
    rest = sorted((key, value) for key, value in properties.items() if key != default_key)
    return ",".join([properties[default_key], *(f"{key}={value}" for key, value in rest)])


def read_net(value: str) -> tuple[str, str, dict[str, str]]:
    """A network device as (model, MAC or "", the rest)."""
    net = parse(value, "model")
    for model in _MODELS:
        if model in net:
            return model, net.pop(model), net
    return net.pop("model"), net.pop("macaddr", ""), net


def show_net(model: str, mac: str, rest: Mapping[str, str]) -> str:
    """The network device as it is read back: `virtio=MAC,bridge=…`."""
    return ",".join([f"{model}={mac}", *(f"{key}={rest[key]}" for key in sorted(rest))])


def bytes_of(size: str) -> int:
    """`20G` in bytes; a number alone is bytes.

    Raises:
        PveError: 400, it is not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", size)
    if not found:
        raise PveError(400, "Parameter verification failed.", {"size": "value does not match the regex pattern"})
    return int(float(found[1]) * UNITS[found[2]])


def size_of(size: int) -> str:
    """Bytes as Proxmox VE writes them: in the largest unit that leaves no remainder."""
    unit = next(unit for unit in ("T", "G", "M", "K", "") if size >= UNITS[unit] and size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def read_back(name: str, value: str) -> str | int:
    """A value as GET …/config shows it."""
    return int(value) if name in _INTEGERS else value


def sorted_tags(tags: str) -> str:
    """Tags without doubles, in lower case and order, as Proxmox VE stores them."""
    return ";".join(sorted({tag.lower() for tag in re.split(r"[;, ]", tags) if tag}))
