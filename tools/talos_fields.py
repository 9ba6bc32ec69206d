"""Writes the fields of Talos' machine configuration, with their types, from Talos' own JSON Schema.

Usage: python tools/talos_fields.py SCHEMA
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "fluobook" / "machine" / "fields.yaml"
ANY = {"acceptedCAs", "endpoint"}
"""Fields that are something else in the schema than in Talos."""
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
    if "crt" in part.get("properties", {}) or "key" in part.get("properties", {}):
        return "pair"
    return part.get("type", "string" if limits else "any")


if __name__ == "__main__":
    schema = json.loads(Path(sys.argv[1]).read_text())
    FILE.write_text(yaml.safe_dump(fields_of(schema), default_flow_style=None, width=118))
