"""The shapes of the built-in kinds, out of the OpenAPI documents of a real API server (data/NOTICE says which)."""

from __future__ import annotations

import functools
import json
import lzma
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj

REF = "#/components/schemas/"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@functools.cache
def data() -> dict[str, Any]:
    """`resources`, `schemas` and protobuf `messages` of the built-in kinds."""
    return json.loads(lzma.decompress((resources.files(__package__) / "data" / "api.json.xz").read_bytes()))


def published(name: str) -> Obj:
    """A built-in schema as the API server publishes it: with references inside `allOf`."""
    return _with_all_of(named(name))


def _with_all_of(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_all_of(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {key: _with_all_of(item) for key, item in value.items()}
    if isinstance(shown.get("$ref"), str) and len(shown) > 1:
        shown["allOf"] = [{"$ref": shown.pop("$ref")}]
    return shown


@functools.cache
def _kinds() -> dict[tuple[str, str, str], str]:
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, schema in data()["schemas"].items()
        for gvk in schema.get("x-kubernetes-group-version-kind", ())
    }


def schema_name(group: str, version: str, kind: str) -> str:
    """The name of a built-in kind's schema, "" if there is none."""
    return _kinds().get((group, version, kind), "")


def named(name: str) -> Obj:
    """A built-in schema by its name."""
    return data()["schemas"].get(name, {})


def resolve(schema: Obj) -> Obj:
    """The schema, with its reference followed; what stands beside the reference is kept."""
    ref = schema.get("$ref")
    if not ref:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    target = named(ref.removeprefix(REF))
    return {**target, **beside} if beside else target


def child(schema: Obj, key: str) -> Obj:
    """The resolved schema of one member of an object; {} where nothing is declared."""
    found = schema.get("properties", {}).get(key)
    if found is None:
        extra = schema.get("additionalProperties")
        found = extra if isinstance(extra, dict) else None
    if found is None:
        return {}
    if key == "metadata" and found == {"type": "object"}:  # how CustomResourceDefinitions declare it
        return named(OBJECT_META)
    return resolve(found)


def items(schema: Obj) -> Obj:
    """The resolved schema of a list's items."""
    return resolve(schema.get("items") or {})


def is_open(schema: Obj) -> bool:
    """Whether nothing is known of the members, or all are welcome."""
    declared = "properties" in schema or "additionalProperties" in schema
    return bool(schema.get("x-kubernetes-preserve-unknown-fields")) or not declared


def map_keys(schema: Obj) -> list[str]:
    """The keys by which a list's items are told apart; [] if it is not a list of that kind."""
    return schema.get("x-kubernetes-list-map-keys", []) if schema.get("x-kubernetes-list-type") == "map" else []
