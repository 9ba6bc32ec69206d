"""Options of a virtual machine in their text forms, and the errors that Proxmox VE answers with."""

from __future__ import annotations

import re
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


def forbidden(path: str = "", *privileges: str) -> PveError:
    """The 403; without a path it does not name the missing privilege, as in some calls of Proxmox VE."""
    reason = f" ({path}, {'|'.join(privileges)})" if path else ""
    return PveError(403, f"Permission check failed{reason}")


DRIVE = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[12]?\d|30)|virtio(?:1[0-5]|\d)|efidisk0|tpmstate0)")
NET = re.compile(r"net(?:[12]?\d|3[01])")
NEW_DISK = re.compile(r"(?:(?P<storage>[A-Za-z][\w.-]*):)(?P<gib>\d+(?:\.\d+)?)")
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


_CARDS = """
    e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er ne2k_isa ne2k_pci pcnet rtl8139
    virtio vmxnet3
"""
_MODELS = frozenset(_CARDS.split())


def parse(value: str, default_key: str) -> dict[str, str]:
    """A property string (`a,b=c`) as a mapping; a part without a key gets the default key, and `volume` is `file`."""
    pairs = (part.partition("=") for part in value.split(",") if part)
    options = {key if sep else default_key: text if sep else key for key, sep, text in pairs}
    return {"file": options.pop("volume"), **options} if "volume" in options else options


def render(properties: Mapping[str, str], default_key: str) -> str:
    """The property string: the default key's value first, then the others by name."""
    rest = sorted((key, value) for key, value in properties.items() if key != default_key)
    return ",".join([properties[default_key], *(f"{key}={value}" for key, value in rest)])


def parse_net(value: str) -> tuple[str, str, dict[str, str]]:
    """A network device as (model, MAC or "", other properties)."""
    net = parse(value, "model")
    for model in _MODELS & net.keys():
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


def sorted_tags(tags: str) -> str:
    """Tags in lower case, sorted and without duplicates, as Proxmox VE stores them."""
    return ";".join(sorted({tag.lower() for tag in re.split(r"[;, ]", tags) if tag}))
