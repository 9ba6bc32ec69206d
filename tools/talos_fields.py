"""Writes the fields of Talos' machine configuration, which the lab's nodes check, from Talos' own JSON Schema.

Usage: python tools/talos_fields.py SCHEMA
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "lab" / "fluobook_lab" / "talos" / "fields.yaml"
LISTS = {"acceptedCAs"}
"""Fields that are an object in the schema and a list in Talos."""


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of each document type and their types."""
    return {
        name: {key: "any" if key in LISTS else _type(part) for key, part in definition.get("properties", {}).items()}
        for name, definition in sorted(schema["$defs"].items())
    }


def _type(part: dict[str, Any]) -> Any:
    if "$ref" in part:
        return part["$ref"].rpartition("/")[2]
    if part.get("type") == "array":
        return [_type(part.get("items") or {})]
    if "crt" in part.get("properties", {}) or "key" in part.get("properties", {}):
        return "pair"
    return part.get("type", "any")


if __name__ == "__main__":
    schema = json.loads(Path(sys.argv[1]).read_text())
    FILE.write_text(yaml.safe_dump(fields_of(schema), default_flow_style=None, width=118))
