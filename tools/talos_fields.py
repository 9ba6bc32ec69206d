"""Writes the fields of Talos' machine configuration, with their types, from Talos' own JSON Schemas.

Usage: python tools/talos_fields.py SCHEMA [NEWER_SCHEMA VERSION]

The second form writes what a newer version, such as 1.14, adds; what it only calls deprecated it still reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "fluobook" / "machine"
ANY = {"acceptedCAs", "endpoint"}
"""Fields that are something else in the schema than in Talos."""
NAMED = {"resources": "v1alpha1.ResourcesConfig"}
"""Objects whose fields the schema leaves open."""
OWN_WORDS = ("v1alpha1.", "cri.RegistryEndpoint")
"""Types whose values Talos checks later, in other words than the schema's, or not at all."""


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of each document type and their types."""
    return {
        name: {
            key: "any" if key in ANY else _type(name, key, part)
            for key, part in definition.get("properties", {}).items()
        }
        for name, definition in sorted(schema["$defs"].items())
    }


def _type(owner: str, key: str, part: dict[str, Any]) -> Any:
    limits = {name: part[name] for name in ("enum", "pattern") if name in part}
    if limits and (key == "kind" or not owner.startswith(OWN_WORDS)):
        return limits
    if "$ref" in part:
        return part["$ref"].rpartition("/")[2]
    if part.get("type") == "array":
        return [_type(owner, key, part.get("items") or {})]
    parts = part.get("properties", {}).keys()
    if parts & {"crt", "key"}:
        return "certificate and key" if "cert" in parts else "pair"
    for values in (*part.get("patternProperties", {}).values(), part.get("additionalProperties")):
        if values:
            return {"map": "argument" if "oneOf" in values else values["type"]}
    kind = part.get("type", "string" if limits else "any")
    return NAMED.get(key, kind) if kind == "object" else kind


def added(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fields that are new, or have another type."""
    differing = {
        name: {key: kind for key, kind in own.items() if old.get(name, {}).get(key) != kind}
        for name, own in new.items()
    }
    return {name: own for name, own in differing.items() if own or name not in old}


if __name__ == "__main__":
    first, *newer = sys.argv[1:]
    fields, name = fields_of(json.loads(Path(first).read_text())), "fields.yaml"
    if newer:
        fields, name = added(fields, fields_of(json.loads(Path(newer[0]).read_text()))), f"fields_{newer[1]}.yaml"
    (FOLDER / name).write_text(yaml.safe_dump(fields, default_flow_style=None, width=118))
