"""The schemas of the built-in kinds (data/NOTICE says where they are from), and objects checked against schemas."""

from __future__ import annotations

import functools
import json
import lzma
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    """The schema, with its reference followed; members beside the reference are kept."""
    ref = schema.get("$ref")
    if not ref:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    target = named(ref.removeprefix(REF))
    return {**target, **beside} if beside else target


def child(schema: Obj, key: str) -> Obj:
    """The resolved schema of one member of an object; {} where nothing is declared."""
    member = schema.get("properties", {}).get(key)
    if member is None:
        extra = schema.get("additionalProperties")
        member = extra if isinstance(extra, dict) else None
    if member is None:
        return {}
    if key == "metadata" and member == {"type": "object"}:  # how CustomResourceDefinitions declare it
        return named(OBJECT_META)
    return resolve(member)


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


Problem = tuple[str, str]
"""A field, and what is wrong with it."""

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (isinstance(value, int) and not isinstance(value, bool)) or _whole(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}

_LIMITS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", lambda value, limit: value >= limit, "should be greater than or equal to"),
    ("maximum", lambda value, limit: value <= limit, "should be less than or equal to"),
    ("minLength", lambda value, limit: len(value) >= limit, "should be at least as long as"),
    ("maxLength", lambda value, limit: len(value) <= limit, "may not be longer than"),
    ("minItems", lambda value, limit: len(value) >= limit, "should have at least as many items as"),
    ("maxItems", lambda value, limit: len(value) <= limit, "must have at most as many items as"),
    ("pattern", lambda value, limit: re.search(limit, value) is not None, "should match"),
)


def _whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


WORKLOADS = {("apps", plural) for plural in ("daemonsets", "deployments", "replicasets", "statefulsets")}


def workload_problems(spec: Obj) -> Iterator[Problem]:
    """What no schema can say of a workload: its template must be what it selects, and there is no negative count."""
    if spec.get("replicas", 0) < 0:
        yield "spec.replicas", f"Invalid value: {spec['replicas']}: must be greater than or equal to 0"
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not matches(spec["selector"], labels):
        shown = json.dumps(labels, separators=(",", ":"), sort_keys=True)
        yield "spec.template.metadata.labels", f"Invalid value: {shown}: `selector` does not match template `labels`"


def unknown_fields(value: Any, schema: Obj, path: str = "") -> Iterator[str]:
    """The paths of members that the schema does not declare; nothing below open parts is looked at."""
    if isinstance(value, list):
        below = items(schema)
        for index, item in enumerate(value):
            yield from unknown_fields(item, below, f"{path}[{index}]")
    if not isinstance(value, dict) or is_open(schema):
        return
    extra = "additionalProperties" in schema
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if extra or key in schema.get("properties", {}):
            yield from unknown_fields(item, child(schema, key), here)
        else:
            yield here


def pruned(value: Any, schema: Obj) -> Any:
    """The value without the members that the schema does not declare."""
    if isinstance(value, list):
        below = items(schema)
        return [pruned(item, below) for item in value]
    if not isinstance(value, dict) or is_open(schema):
        return value
    extra = "additionalProperties" in schema
    known = {key: item for key, item in value.items() if extra or key in schema.get("properties", {})}
    return {key: pruned(item, child(schema, key)) for key, item in known.items()}


def defaulted(value: Any, schema: Obj) -> Any:
    """The value with the schema's own defaults filled in, as custom resources get them."""
    if isinstance(value, list):
        below = items(schema)
        return [defaulted(item, below) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: defaulted(item, child(schema, key)) for key, item in value.items()}
    for key, below in schema.get("properties", {}).items():
        if key not in filled and "default" in below:
            filled[key] = defaulted(below["default"], resolve(below))
    return filled


def repeated_items(value: Any, schema: Obj, path: str = "") -> Iterator[Problem]:
    """Items of keyed lists that have the keys of one before them."""
    keys = map_keys(schema)
    if keys and isinstance(value, list):
        identities = [json.dumps([item.get(key) for key in keys]) for item in value if isinstance(item, dict)]
        for index, item in enumerate(value[: len(identities)]):
            if identities[index] in identities[:index]:
                named = ",".join(f"{key}={json.dumps(item[key])}" for key in keys if key in item)
                yield path, f"duplicate entries for key [{named}]"
    for below, item, here in _members(value, schema, path):
        yield from repeated_items(item, below, here)


def wrong_types(value: Any, schema: Obj, path: str = "") -> Iterator[Problem]:
    """Values of another type than the schema says."""
    kind = schema.get("type", "")
    if value is None or _is_int_or_string(schema):
        return
    if kind in _TYPES and not _TYPES[kind](value):
        yield (
            path,
            f'Invalid value: "{_type_name(value)}": {path} in body must be of type {kind}: "{_type_name(value)}"',
        )
        return
    for below, item, here in _members(value, schema, path):
        yield from wrong_types(item, below, here)


def broken_rules(
    value: Any, schema: Obj, path: str = "", *, missing: tuple[Any, ...] = (None, "")
) -> Iterator[Problem]:
    """What is missing or not allowed, of a value whose types are right.

    Args:
        value: the value.
        schema: its schema.
        path: its name in messages.
        missing: values of a required field that count as none; in a custom resource, an empty text is a value.
    """
    if value is None:
        return
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            if value.get(key) in missing and not schema.get("properties", {}).get(key, {}).get("default"):
                yield (f"{path}.{key}" if path else key), "Required value"
    if "enum" in schema and value not in schema["enum"] and not (value == "" and isinstance(value, str)):
        supported = ", ".join(f'"{item}"' for item in schema["enum"])
        yield path, f'Unsupported value: "{value}": supported values: {supported}'
    for keyword, holds, requirement in _LIMITS:
        if keyword in schema and not _is_int_or_string(schema) and not _holds(holds, value, schema[keyword]):
            shown = value if isinstance(value, int | float) else f'"{value}"'
            yield path, f"Invalid value: {shown}: {path} in body {requirement} {schema[keyword]!r}"
    for below, item, here in _members(value, schema, path):
        yield from broken_rules(item, below, here, missing=missing)


def _holds(test: Callable[[Any, Any], bool], value: Any, limit: Any) -> bool:
    try:
        return test(value, limit)
    except (re.error, TypeError):  # RE2 knows patterns that `re` does not
        return True


def _members(value: Any, schema: Obj, path: str) -> Iterator[tuple[Obj, Any, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield child(schema, key), item, f"{path}.{key}" if path else key
    if isinstance(value, list):
        below = items(schema)
        for index, item in enumerate(value):
            yield below, item, f"{path}[{index}]"


def _is_int_or_string(schema: Obj) -> bool:
    return bool(schema.get("x-kubernetes-int-or-string")) or schema.get("format") == "int-or-string"


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
