"""Options of a virtual machine: names, value checks, text forms; and the errors that Proxmox VE answers with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class PveError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.errors = dict(errors or {})


class TaskError(Exception):
    """A task failed; the text becomes its exit status."""


def failed(text: str) -> PveError:
    """The 500 that every `die` in the code of Proxmox VE becomes."""
    return PveError(500, text)


def invalid(**errors: str) -> PveError:
    """The 400 for invalid parameters; write dashes in their names as underscores."""
    by_name = {name.replace("_", "-"): text for name, text in errors.items()}
    return PveError(400, "Parameter verification failed.", by_name)


def missing(*names: str) -> PveError:
    """The 400 for missing parameters."""
    return invalid(**dict.fromkeys(names, "property is missing and it is not optional"))


def forbidden(path: str = "", *privileges: str) -> PveError:
    """The 403; without a path it does not name the missing privilege, as in some calls of Proxmox VE."""
    reason = f" ({path}, {'|'.join(privileges)})" if path else ""
    return PveError(403, f"Permission check failed{reason}")


DRIVE = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[12]?\d|30)|virtio(?:1[0-5]|\d)|efidisk0|tpmstate0)")
NET = re.compile(r"net(?:[12]?\d|3[01])")
NEW_DISK = re.compile(r"(?:(?P<storage>[A-Za-z][\w.-]*):)(?P<gib>\d+(?:\.\d+)?)")
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Option:
    """The constraints on a value: a kind (integer, boolean, string), a range, an enumeration, a pattern."""

    kind: str = "string"
    least: int | None = None
    most: int | None = None
    enum: tuple[str, ...] = ()
    pattern: str = ""

    def problem(self, value: str) -> str:
        """Why Proxmox VE refuses a value, in its words; "" for a valid value."""
        kinds = {"integer": r"[+-]?\d+", "boolean": r"[01]"}
        if not re.fullmatch(kinds.get(self.kind, ".*"), value, re.DOTALL):
            return f"type check ('{self.kind}') failed - got '{value}'"
        if self.least is not None and int(value) < self.least:
            return f"value must have a minimum value of {self.least}"
        if self.most is not None and int(value) > self.most:
            return f"value must have a maximum value of {self.most}"
        if self.enum and value not in self.enum:
            return f"value '{value}' does not have a value in the enumeration '{', '.join(self.enum)}'"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return "value does not match the regex pattern"
        return ""


_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_STRINGS = """
    agent args boot cicustom cipassword ciuser cpu cpulimit description hookscript hotplug machine nameserver rng0
    searchdomain sshkeys startup vga vmgenid
"""
_FLAGS = "acpi ciupgrade kvm localtime numa onboot protection reboot tablet template"
OPTIONS: dict[str, Option] = {
    **dict.fromkeys(_STRINGS.split(), Option()),
    **dict.fromkeys(_FLAGS.split(), Option("boolean")),
    **dict.fromkeys(("cores", "sockets", "vcpus"), Option("integer", least=1)),
    "arch": Option(enum=("x86_64", "aarch64")),
    "balloon": Option("integer", least=0),
    "bios": Option(enum=("seabios", "ovmf")),
    "citype": Option(enum=("configdrive2", "nocloud", "opennebula")),
    "cpuunits": Option("integer", least=1, most=262144),
    "memory": Option("integer", least=16),
    "name": Option(pattern=rf"{_LABEL}(?:\.{_LABEL})*"),
    "ostype": Option(enum=("other", "win10", "win11", "l24", "l26", "solaris")),
    "scsihw": Option(enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "smbios1": Option(pattern=rf"(?:uuid={_UUID}|[a-z0-9]+=[^,]*)(?:,[a-z0-9]+=[^,]*)*"),
    "tags": Option(pattern=r"[A-Za-z0-9_][A-Za-z0-9_+.-]*(?:[;, ][A-Za-z0-9_][A-Za-z0-9_+.-]*)*"),
}
"""The options without a number in their name, and what their values must be."""
_NUMBERED = re.compile(r"(?:ipconfig|serial|usb|hostpci|numa|parallel|unused|virtiofs)\d+")
_INTEGERS = frozenset(name for name, option in OPTIONS.items() if option.kind != "string" and name != "memory")
CREATE_ONLY = frozenset({"vmid", "start", "pool", "storage", "force", "unique", "archive", "bwlimit", "ha-managed"})
UPDATE_ONLY = frozenset({"digest", "delete", "revert", "force", "background_delay", "skiplock"})


def validate(params: Mapping[str, str], *, also: frozenset[str]) -> None:
    """Check parameters against the schema.

    Raises:
        PveError: 400, with the problem of each parameter.
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
    """A property string (`a,b=c`) as a mapping; a part without a key gets the default key."""
    pairs = (part.partition("=") for part in value.split(",") if part)
    return {key if sep else default_key: text if sep else key for key, sep, text in pairs}


def render(properties: Mapping[str, str], default_key: str) -> str:
    """The property string: the default key's value first, then the others by name."""
    rest = sorted((key, value) for key, value in properties.items() if key != default_key)
    return ",".join([properties[default_key], *(f"{key}={value}" for key, value in rest)])


def parse_net(value: str) -> tuple[str, str, dict[str, str]]:
    """A network device as (model, MAC or "", other properties)."""
    net = parse(value, "model")
    for model in _MODELS:
        if model in net:
            return model, net.pop(model), net
    return net.pop("model"), net.pop("macaddr", ""), net


def render_net(model: str, mac: str, rest: Mapping[str, str]) -> str:
    """A network device as GET …/config returns it: `virtio=MAC,bridge=…`."""
    return ",".join([f"{model}={mac}", *(f"{key}={rest[key]}" for key in sorted(rest))])


def bytes_of(size: str) -> int:
    """`20G` in bytes; a number without a unit is bytes.

    Raises:
        PveError: 400, the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", size)
    if not match:
        raise invalid(size="value does not match the regex pattern")
    return int(float(match[1]) * UNITS[match[2]])


def size_of(size: int) -> str:
    """Bytes in the largest unit that leaves no remainder, as Proxmox VE writes sizes."""
    unit = next(unit for unit in ("T", "G", "M", "K", "") if size >= UNITS[unit] and size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def shown(name: str, value: str) -> str | int:
    """A value as GET …/config returns it."""
    return int(value) if name in _INTEGERS else value


def sorted_tags(tags: str) -> str:
    """Tags in lower case, sorted and without duplicates, as Proxmox VE stores them."""
    return ";".join(sorted({tag.lower() for tag in re.split(r"[;, ]", tags) if tag}))
