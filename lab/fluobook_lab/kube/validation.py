"""Holds objects against their schemas: unknown fields, wrong types, missing and impossible values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes.selectors import matches
from fluobook_lab.kube import schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook_lab.kube.objects import Obj

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
        below = schemas.items(schema)
        for index, item in enumerate(value):
            yield from unknown_fields(item, below, f"{path}[{index}]")
    if not isinstance(value, dict) or schemas.is_open(schema):
        return
    extra = "additionalProperties" in schema
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if extra or key in schema.get("properties", {}):
            yield from unknown_fields(item, schemas.child(schema, key), here)
        else:
            yield here


def pruned(value: Any, schema: Obj) -> Any:
    """The value without the members that the schema does not declare."""
    if isinstance(value, list):
        below = schemas.items(schema)
        return [pruned(item, below) for item in value]
    if not isinstance(value, dict) or schemas.is_open(schema):
        return value
    extra = "additionalProperties" in schema
    known = {key: item for key, item in value.items() if extra or key in schema.get("properties", {})}
    return {key: pruned(item, schemas.child(schema, key)) for key, item in known.items()}


def defaulted(value: Any, schema: Obj) -> Any:
    """The value with the schema's own defaults filled in, as custom resources get them."""
    if isinstance(value, list):
        below = schemas.items(schema)
        return [defaulted(item, below) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: defaulted(item, schemas.child(schema, key)) for key, item in value.items()}
    for key, below in schema.get("properties", {}).items():
        if key not in filled and "default" in below:
            filled[key] = defaulted(below["default"], schemas.resolve(below))
    return filled


def repeated_items(value: Any, schema: Obj, path: str = "") -> Iterator[Problem]:
    """Items of keyed lists that have the keys of one before them."""
    keys = schemas.map_keys(schema)
    if keys and isinstance(value, list):
        told = [json.dumps([item.get(key) for key in keys]) for item in value if isinstance(item, dict)]
        for index, item in enumerate(value[: len(told)]):
            if told[index] in told[:index]:
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


def broken_rules(value: Any, schema: Obj, path: str = "") -> Iterator[Problem]:
    """What is missing or not allowed, of a value whose types are right."""
    if value is None:
        return
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            if value.get(key) in (None, "") and not schema.get("properties", {}).get(key, {}).get("default"):
                yield (f"{path}.{key}" if path else key), "Required value"
    if "enum" in schema and value not in schema["enum"] and not (value == "" and isinstance(value, str)):
        supported = ", ".join(f'"{item}"' for item in schema["enum"])
        yield path, f'Unsupported value: "{value}": supported values: {supported}'
    for word, holds, told in _LIMITS:
        if word in schema and not _is_int_or_string(schema) and not _holds(holds, value, schema[word]):
            shown = value if isinstance(value, int | float) else f'"{value}"'
            yield path, f"Invalid value: {shown}: {path} in body {told} {schema[word]!r}"
    for below, item, here in _members(value, schema, path):
        yield from broken_rules(item, below, here)


def _holds(test: Callable[[Any, Any], bool], value: Any, limit: Any) -> bool:
    try:
        return test(value, limit)
    except (re.error, TypeError):  # RE2 knows patterns that `re` does not
        return True


def _members(value: Any, schema: Obj, path: str) -> Iterator[tuple[Obj, Any, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield schemas.child(schema, key), item, f"{path}.{key}" if path else key
    if isinstance(value, list):
        below = schemas.items(schema)
        for index, item in enumerate(value):
            yield below, item, f"{path}[{index}]"


def _is_int_or_string(schema: Obj) -> bool:
    return bool(schema.get("x-kubernetes-int-or-string")) or schema.get("format") == "int-or-string"


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
