#!/usr/bin/env python3
"""Builds lab/fluobook_lab/kube/data/*.json.xz: what the lab's Kubernetes API knows of the built-in kinds.

Run it by hand for a new Kubernetes version: `build.py dump.json PROTO…`. `dump.json` holds what a running
kube-apiserver serves, {"openapi": {path: document}, "api": …, "apis": …}; its discovery was requested with
`Accept: application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io`. PROTO are the generated.proto files of
kubernetes/api, kubernetes/apimachinery and kubernetes/apiextensions-apiserver of the same version. All of it is
Apache-2.0.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "lab" / "fluobook_lab" / "kube" / "data"
SCALARS = {"string", "bytes", "bool", "int32", "int64", "double"}
FIELD = re.compile(
    r"^\s*(?P<label>optional|repeated|map<string, (?P<value>[.\w]+)>)\s*(?P<type>[.\w]+)? "
    r"(?P<name>\w+) = (?P<number>\d+);"
)


def messages(text: str) -> dict[str, dict[str, list[str]]]:
    """Every message of a .proto file: number → [name, label, type]."""
    package = re.search(r"^package (\S+);", text, re.MULTILINE)
    prefix, by_name, current = (package[1] if package else ""), {}, None
    for line in text.splitlines():
        if begin := re.match(r"^message (\w+) \{", line):
            current = by_name.setdefault(f"{prefix}.{begin[1]}", {})
        elif current is not None and (field := FIELD.match(line)):
            kind = field["value"] or field["type"]
            full = kind if kind in SCALARS else (kind.lstrip(".") if "." in kind else f"{prefix}.{kind}")
            current[field["number"]] = [field["name"], field["label"].split("<")[0], full]
    return by_name


def schemas(openapi: dict[str, Any]) -> dict[str, Any]:
    """All schemas of all documents, once each, without descriptions."""
    by_name: dict[str, Any] = {}
    for document in openapi.values():
        by_name.update(document.get("components", {}).get("schemas", {}))
    return {name: bare(schema) for name, schema in sorted(by_name.items())}


def bare(value: Any) -> Any:
    """The schema without prose, and with single `allOf`s folded into it."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: bare(item) for key, item in value.items() if not (key == "description" and isinstance(item, str))}
    if len(kept.get("allOf", [])) == 1 and "properties" not in kept:
        kept.update(kept.pop("allOf")[0])
    return kept


def resources(*discoveries: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry for each built-in group and version, in the server's order of preference."""
    return [
        {"group": item["metadata"].get("name", ""), "version": version["version"], "resources": version["resources"]}
        for discovery in discoveries
        for item in discovery["items"]
        for version in item["versions"]
        if item["metadata"].get("name") != "argoproj.io"
    ]


def written(name: str, value: dict[str, Any]) -> None:
    """Write one file."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    (DATA / name).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def main(dump: str, protos: list[str]) -> None:
    """Write the files."""
    data = json.loads(Path(dump).read_text())
    by_name: dict[str, Any] = {}
    for proto in protos:
        by_name.update(messages(Path(proto).read_text()))
    served = resources(data["api"], data["apis"])
    written("api.json.xz", {"resources": served, "schemas": schemas(data["openapi"]), "messages": by_name})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
