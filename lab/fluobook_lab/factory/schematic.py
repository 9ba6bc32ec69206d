"""Schematics as the Image Factory reads them: known fields only, one canonical form, its SHA-256 as the id."""

from __future__ import annotations

import hashlib
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

FIELDS: dict[str, Any] = {
    "overlay": {"image": str, "name": str, "options": dict},
    "customization": {
        "embeddedMachineConfiguration": str,
        "extraKernelArgs": list,
        "meta": list,
        "systemExtensions": {"officialExtensions": list},
        "bootloader": str,
        "secureboot": {"enrollKeys": str, "includeWellKnownCertificates": bool},
        "diskImage": {"sectorSize": int},
    },
}
"""The fields in the order of the canonical form, with what they hold."""


def schematic_of(text: str) -> dict[str, Any]:
    """The schematic in canonical order, without what is empty; `customization` is always there.

    Raises:
        ValueError: the text is not a schematic.
    """
    try:
        given = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"yaml: {error}") from None
    kept = _known(given or {}, FIELDS, "schematic")
    overlay = {"overlay": kept["overlay"]} if "overlay" in kept else {}
    return overlay | {"customization": kept.get("customization", {})}


def _known(given: Any, fields: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"yaml: cannot unmarshal {type(given).__name__} into {where}")  # noqa: TRY004 - of the text
    if unknown := sorted(given.keys() - fields.keys()):
        raise ValueError(f"yaml: field {unknown[0]} not found in type {where}")
    kept = {}
    for name, kind in fields.items():
        value = given.get(name)
        if isinstance(kind, dict):
            value = _known(value or {}, kind, name)
        elif value is not None and not isinstance(value, kind):
            raise ValueError(f"yaml: cannot unmarshal {value!r} into {where}.{name}")
        if value:
            kept[name] = value
    return kept


def canonical(schematic: dict[str, Any]) -> str:
    """The YAML that the factory stores: four spaces, lists indented as well."""
    yaml = YAML()
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.width = 1_000_000
    text = StringIO()
    yaml.dump(schematic, text)
    return text.getvalue()


def id_of(text: str) -> str:
    """The id of a schematic's text.

    Raises:
        ValueError: the text is not a schematic.
    """
    return hashlib.sha256(canonical(schematic_of(text)).encode()).hexdigest()
