"""The schematic of the Talos image, its id computed offline, and the names of ISO and installer.

The Image Factory's id of a schematic is the SHA-256 of its canonical YAML, so talos/schematic.yaml alone gives the
names of ISO and installer; the factory only builds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from fluobook.errors import ParamsError
from fluobook.files import packaged
from fluobook.machine.documents import load

FACTORY = "factory.talos.dev"
"""Host of the Image Factory."""

_FIELDS: dict[str, Any] = packaged(__package__, "schematic.yaml")
_TYPES = {"text": str, "number": int, "boolean": bool}


@dataclass(frozen=True)
class Image:
    """A Talos image of one version with one schematic, for virtual machines with a cloud-init drive (nocloud)."""

    version: str
    """Of Talos, such as 1.13.9."""
    schematic: str
    """The schematic's id: 64 hexadecimal digits."""
    host: str = FACTORY
    """The Image Factory, or a mirror of it."""

    @property
    def url(self) -> str:
        """The URL of the ISO."""
        return f"https://{self.host}/image/{self.schematic}/v{self.version}/nocloud-amd64.iso"

    @property
    def filename(self) -> str:
        """The ISO's name on a Proxmox VE storage; it names version and schematic, so none is downloaded twice."""
        return f"talos-v{self.version}-{self.schematic[:16]}-nocloud-amd64.iso"

    @property
    def installer(self) -> str:
        """The image that installs Talos; the metal installer would lose the static address (F24)."""
        return f"{self.host}/nocloud-installer/{self.schematic}:v{self.version}"


def image_of(text: str, version: str, *, host: str = FACTORY) -> Image:
    """The image for a schematic's YAML text and a Talos version.

    Raises:
        ParamsError: the text is not a schematic.
    """
    return Image(version.removeprefix("v"), schematic_id(parse(text)), host)


def parse(text: str) -> dict[str, Any]:
    """Read a schematic's YAML.

    Raises:
        ParamsError: it is not one mapping, or has an unknown field or a value of another type.
    """
    documents = load(text)
    if len(documents) > 1:
        raise ParamsError("a schematic is one YAML document")
    schematic = documents[0] if documents else {}
    _require_known(schematic, _FIELDS, "")
    return schematic


def canonical(schematic: Mapping[str, Any]) -> str:
    """The schematic's YAML as the factory itself writes it: fields in order, without empty ones."""
    given = _ordered(schematic, _FIELDS)
    ordered = {key: given.get(key, {}) for key in _FIELDS if key in given or key == "customization"}
    return "\n".join(_lines(ordered, "")) + "\n"


def schematic_id(schematic: Mapping[str, Any]) -> str:
    """The factory's id of the schematic."""
    return hashlib.sha256(canonical(schematic).encode()).hexdigest()


def extensions(schematic: Mapping[str, Any]) -> tuple[str, ...]:
    """The official extensions in a schematic, such as siderolabs/iscsi-tools."""
    names = ((schematic.get("customization") or {}).get("systemExtensions") or {}).get("officialExtensions")
    return tuple(names or ())


def _require_known(given: Any, fields: Any, where: str) -> None:
    if isinstance(fields, str):
        if type(given) is not _TYPES[fields]:
            raise ParamsError(f"the schematic's {where.rstrip('.')} is not a {fields}: {given!r}")
        return
    if isinstance(fields, list) and isinstance(given, list):
        for item in given:
            _require_known(item, fields[0], where)
        return
    if not isinstance(given, dict) or isinstance(fields, list):
        kind = "list" if isinstance(fields, list) else "map"
        raise ParamsError(f"the schematic's {where.rstrip('.') or 'text'} is not a {kind}")
    for key, value in given.items():
        if key not in fields:
            remedy = f"known there: {', '.join(fields)}"
            raise ParamsError(f"the schematic has an unknown field {where}{key}", remedy=remedy)
        if fields[key] is not None and value is not None:
            _require_known(value, fields[key], f"{where}{key}.")


def _ordered(given: Any, fields: Any) -> Any:
    if isinstance(fields, str):
        return given
    if isinstance(fields, list):
        return [_ordered(item, fields[0]) for item in given]
    ordered = {
        key: _ordered(given[key], below) if below is not None else given[key]
        for key, below in fields.items()
        if given.get(key)
    }
    return {key: value for key, value in ordered.items() if value}


def _lines(value: Any, pad: str) -> list[str]:
    """YAML as Go's library writes it, with four spaces and indented lists; PyYAML cannot."""
    if isinstance(value, list):
        items = [_lines(item, pad + "  ") if isinstance(item, dict) else [pad + "  " + _scalar(item)] for item in value]
        return [line for first, *more in items for line in (f"{pad}- {first[len(pad) + 2 :]}", *more)]
    lines = []
    for key, item in value.items():
        if isinstance(item, dict | list) and item:
            lines += [f"{pad}{key}:", *_lines(item, pad + "    ")]
        else:
            lines.append(f"{pad}{key}: {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, width=1_000_000, allow_unicode=True, default_flow_style=True)
    return text.removesuffix("...\n").strip()
