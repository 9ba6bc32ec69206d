"""Which fields Talos' documents have, and what each may hold: its reader refuses all others, however deep they stand.

`fields.yaml` is made of Talos' own JSON Schema (`python -m fluobook_lab.talos.fields SCHEMA`): by type, each field and
its type. The schema leaves out what is deprecated; Talos still reads it, and so do we, without looking into it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = Path(__file__).with_name("fields.yaml")
PAIR = "pair"
"""A certificate and its key, in base64."""
ANY = "any"
MAIN = "v1alpha1.Config"
LISTS = {"acceptedCAs"}
"""Fields whose schema is not what Talos reads: a list there, an object in the schema."""
LONGEST = 10
"""Characters of a value that Talos' reader shows."""

_DEPRECATED = {
    "v1alpha1.Config": "persist",
    "v1alpha1.MachineConfig": "network disks time registries systemDiskEncryption env",
    "v1alpha1.APIServerConfig": "disablePodSecurityPolicy",
    "v1alpha1.EtcdConfig": "subnet",
    "v1alpha1.FeaturesConfig": "rbac stableHostname apidCheckExtKeyUsage",
    "v1alpha1.InstallConfig": "bootloader extensions extraKernelArgs",
}
_SCALARS = (str, int, float, bool, dt.date)


class UndecodableError(Exception):
    """A document has a value of another type; the text is what Talos' YAML reader says, with the field for the line."""


@cache
def fields() -> dict[str, dict[str, Any]]:
    """By type, the type of each field: a name, or a list of one."""
    known: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())
    for name, more in _DEPRECATED.items():
        known[name] |= dict.fromkeys(more.split(), ANY)
    return known


def unknown_keys(document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What of a document nobody reads, at its place in it.

    Args:
        document: the document.
        kind: its type.

    Raises:
        UndecodableError: a value is of another type than its field.
    """
    return dict(_unknown(document, kind, ""))


def type_of(document: Mapping[str, Any]) -> str:
    """The type of a document; "" where the schema has none."""
    if not document.get("kind"):
        return MAIN
    ending = f".{document['kind']}V1Alpha1".lower()
    return next((name for name in fields() if f".{name.partition('.')[2]}".lower() == ending), "")


def _unknown(value: Mapping[str, Any], kind: str, path: str) -> Iterator[tuple[str, Any]]:
    known = fields()[kind]
    for key, below in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in known:
            yield str(key), below
        elif found := _below(below, known[key], where):
            yield str(key), found


def _below(value: Any, kind: Any, path: str) -> Any:
    """What is unknown in a value."""
    if value is None or kind == ANY:
        return None
    _must_be(value, kind, path)
    if isinstance(kind, list):
        return [found for n, item in enumerate(value) if (found := _below(item, kind[0], f"{path}[{n}]"))]
    if kind == PAIR:
        return {key: below for key, below in value.items() if key not in ("crt", "key")}
    return dict(_unknown(value, kind, path)) if kind in fields() else None


def _must_be(value: Any, kind: Any, path: str) -> None:
    scalars: dict[str, tuple[type, ...]] = {"string": _SCALARS, "boolean": (bool,), "integer": (int,)}
    wanted = (list,) if isinstance(kind, list) else scalars.get(kind, (dict,))
    fits: bool = isinstance(value, wanted)
    if not fits:
        go = {"boolean": "bool", "integer": "int"}
        name = f"[]{kind[0]}" if isinstance(kind, list) else go.get(kind, kind)
        raise UndecodableError(f"yaml: unmarshal errors:\n  {path}: cannot unmarshal {_shown(value)} into {name}")
    if kind == PAIR:
        for key in ("crt", "key"):
            _must_be_base64(str(value.get(key) or ""), f"{path}.{key}")


def _must_be_base64(text: str, path: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UndecodableError(f"{path}: illegal base64 data at input byte 0") from None


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "!!map" if isinstance(value, dict) else "!!seq"
    tag, text = {bool: "!!bool", int: "!!int"}.get(type(value), "!!str"), str(value)
    return f"{tag} `{text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}`"


def compact(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of a JSON Schema of Talos."""
    return {
        name: {key: ANY if key in LISTS else _type(part) for key, part in told.get("properties", {}).items()}
        for name, told in sorted(schema["$defs"].items())
    }


def _type(part: Mapping[str, Any]) -> Any:
    if "$ref" in part:
        return part["$ref"].rpartition("/")[2]
    if part.get("type") == "array":
        return [_type(part.get("items") or {})]
    if "crt" in part.get("properties", {}) or "key" in part.get("properties", {}):
        return PAIR
    return part.get("type", ANY)


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[1]).read_text())
    FILE.write_text(yaml.safe_dump(compact(read), default_flow_style=None, width=118))
