"""Schemas of Kubernetes' own kinds and of the custom resources in the tree, and what does not match them.

tools/schemas/build.py generates schemas.json.xz; shapes.yaml, for kinds without a schema, is written by hand.
Structure only: the checks of webhooks are not in it.
"""

from __future__ import annotations

import difflib
import json
import lzma
import re
import sys
from copy import deepcopy
from functools import cache
from importlib.resources import files
from ipaddress import ip_network
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from fluobook.files import packaged
from fluobook.gitops.documents import value_under
from fluobook.params.problems import did_you_mean, shown
from fluobook.params.schedules import is_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Key

_BUILT_IN = ".k8s.io"
_UNSUFFIXED = {"", "apps", "autoscaling", "batch", "policy", "extensions"}
_THIRD_PARTY = {"gateway.networking.k8s.io"}
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


@cache
def _data() -> dict[str, Any]:
    """The packed schemas, and those written by hand for kinds without one."""
    folder = files("fluobook.gitops").joinpath("data")
    data = json.loads(lzma.decompress(folder.joinpath("schemas.json.xz").read_bytes()))
    own = packaged("fluobook.gitops", "data/shapes.yaml")
    kinds, others = data["kinds"] | _closed(own["kinds"]), _closed(own["others"])
    added = packaged("fluobook.gitops", "data/values.yaml")
    values: dict[str, list[Any]] = {}
    for entry in added["values"]:
        for place in entry["at"]:
            values.setdefault(place, []).append(_with_empty(entry["is"]))
    for name, schema in [*data["definitions"].items(), *kinds.items()]:
        _add(schema, name.rpartition("/" if "/" in name else ".")[2], values)
    for key, names in [*((key, added["names"]) for key in kinds), ("*", added["names"])]:
        holder, form = kinds if key in kinds else others, names.get(key.rpartition("/")[2], names["*"])
        name_form = {"properties": {"metadata": {"properties": {"name": form}}}}
        holder[key] = {"allOf": [holder[key], name_form]}
    definitions = {
        name: {"allOf": [schema, *values.get(name.rpartition(".")[2], ())]}
        for name, schema in data["definitions"].items()
    }
    return {
        "kinds": kinds, "others": others, "definitions": definitions, "cluster": data["cluster"] + own["cluster"]
    }  # fmt: skip


def _with_empty(schema: Any) -> Any:
    """A schema in which every enum takes an empty value, which stands for the default."""
    if isinstance(schema, dict):
        return {key: [*value, None, ""] if key == "enum" else _with_empty(value) for key, value in schema.items()}
    return [_with_empty(item) for item in schema] if isinstance(schema, list) else schema


_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}


def _add(schema: Any, owner: str, values: dict[str, list[Any]]) -> None:
    """Add the schemas of values.yaml to the fields of a definition or kind, however deep they are."""
    for field, below in (schema.get("properties") or {}).items():
        _add(below, owner, values)
        added = [_INT64] if "integer" in below.get("type", ()) else []
        added += [*values.get(f"{owner}.{field}", ()), *values.get(f"*.{field}", ())]
        if added:
            schema["properties"][field] = {"allOf": [below, *added]}
    for below in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(below, dict):
            _add(below, owner, values)


def _closed(schema: Any) -> Any:
    """A schema that refuses the fields it does not name, wherever it names some."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed


def is_known(api_version: str, kind: str) -> bool:
    """Whether there is a schema for that kind in that version."""
    return _key(api_version, kind) in _data()["kinds"]


def is_table(name: str) -> bool:
    """Whether a file of that name is a mapping of its own shape: reachability.yaml, kustomization.yaml."""
    return name.endswith(".yaml") and name in _data()["others"]


def is_built_in(api_version: str) -> bool:
    """Whether the API group is one of Kubernetes' own, which a cluster serves without a CRD."""
    group = api_version.rpartition("/")[0]
    return group in _UNSUFFIXED or (group.endswith(_BUILT_IN) and group not in _THIRD_PARTY)


def is_cluster_scoped(group: str, kind: str) -> bool:
    """Whether objects of that kind have no namespace; False for an unknown kind."""
    return f"{group}/{kind}" in _data()["cluster"]


def is_misspelt(api_version: str) -> bool:
    """Whether there can be no such API group: one without a dot is Kubernetes' own."""
    group = api_version.rpartition("/")[0]
    return "." not in group and group not in _UNSUFFIXED


def has_group(api_version: str) -> bool:
    """Whether there are schemas for kinds of that group: another kind is likely misspelt."""
    group = api_version.rpartition("/")[0]
    return any(key.startswith(f"{group}/") for key in _data()["kinds"])


def kinds_of(api_version: str) -> list[str]:
    """The kinds with a schema in that version of a group."""
    return sorted(
        name for version, _, name in (key.rpartition("/") for key in _data()["kinds"]) if version == api_version
    )


@cache
def resources_of(group: str) -> frozenset[str]:
    """The resources of one of Kubernetes' own API groups, as a Role names them; none if the group is unknown."""
    kinds = {key.rpartition("/")[2].lower() for key in _data()["kinds"] if key.startswith(f"{group}/")}
    return frozenset(_plural(kind) for kind in kinds) if is_built_in(f"{group}/v1") else frozenset()


def groups_of(resource: str) -> list[str]:
    """The API groups of Kubernetes' own that have a resource of that name."""
    groups = sorted({key.split("/")[0] for key in _data()["kinds"]})
    return [group or '""' for group in groups if resource in resources_of(group)]


def _plural(kind: str) -> str:
    if kind.endswith(("ss", "x", "status")):
        return f"{kind}es"
    if kind.endswith("s"):
        return kind
    return f"{kind[:-1]}ies" if re.search(r"[^aeiou]y$", kind) else f"{kind}s"


def versions_of(api_version: str, kind: str) -> list[str]:
    """The versions in which the cluster serves a kind of that group, newest last."""
    group = api_version.rpartition("/")[0]
    keys = (key.split("/") for key in _data()["kinds"])
    return sorted(version for key_group, version, name in keys if (key_group, name) == (group, kind))


Mismatch = tuple[tuple["Key", ...], str]
"""The path of a value that does not match its schema, and what is wrong with it."""


def checked(data: dict[str, Any], name: str) -> tuple[dict[str, Any], list[Mismatch], list[tuple[Key, ...]]]:
    """An object, compared with the schema of its file or its kind; nothing is wrong where there is no schema.

    Args:
        data: the object.
        name: the name of its file.

    Returns:
        The object as rules can read it (values of wrong types and required ones that are missing are empty), what does
        not match, and the paths of the values that are now empty.
    """
    encrypted = name.endswith((".yaml", ".yml")) and "sops" in data
    key = _key(str(data.get("apiVersion", "")), str(data.get("kind", "")))
    kind = data.get("kind")
    named = name if kind is None or name == "kustomization.yaml" else ""  # tables have no kind
    validator = _validator(next((each for each in (named, str(kind), key) if each in _all()), "*"))
    compared = {field: value for field, value in data.items() if field != "sops"} if encrypted else data
    errors = _errors(validator, compared)
    hidden = kind == "Secret"
    mismatches = [*_mismatches(errors, hidden=hidden)]
    if encrypted:
        validator, compared = _validator("encrypted"), data
        errors = _errors(validator, data)
        mismatches += [each for each in _mismatches(errors, hidden=False) if each[0][:1] == ("sops",)]
    mismatches = list({path: (path, message) for path, message in mismatches}.values())
    emptied: list[tuple[Key, ...]] = []
    while wrong := [error for error in errors if error.validator in ("type", "required")]:
        compared = compared if emptied else deepcopy(compared)
        emptied += [path for error in wrong for path in _empty(compared, error)]
        errors = _errors(validator, compared)
    return compared, mismatches, emptied


def _errors(validator: Any, data: dict[str, Any]) -> list[Any]:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 (see `_validator`)

    return [best_match([error]) or error for error in validator.iter_errors(data)]


def _mismatches(errors: list[Any], *, hidden: bool) -> Iterator[Mismatch]:
    """What does not match, each mistake once: a required field that is misspelt is also an unknown one."""
    missing = {tuple(error.absolute_path): _missing(error) for error in errors if error.validator == "required"}
    misspelt: set[tuple[Key, ...]] = set()
    for error in errors:
        if unknown := _unexpected(error):
            path = tuple(error.absolute_path)
            meant = difflib.get_close_matches(unknown[0], missing.get(path, ()), n=1)
            misspelt |= {path} if meant else set()
    for error in errors:
        if error.validator != "required" or tuple(error.absolute_path) not in misspelt or len(_missing(error)) > 1:
            yield _mismatch(error, hidden=hidden)


def _missing(error: Any) -> list[str]:
    return [key for key in error.validator_value if key not in error.instance]


def _mismatch(error: Any, *, hidden: bool) -> Mismatch:
    is_key = "propertyNames" in error.absolute_schema_path
    unknown = _unexpected(error)
    path = (*error.absolute_path, *(unknown[:1] or ([error.instance] if is_key else [])))
    where, limit = ".".join(map(str, path)) or "it", error.validator_value
    value = "a secret" if hidden and not is_key else shown(error.instance)
    description = error.schema.get("description", "")
    match error.validator:
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            message = f"{where} is {value}, not {' or '.join(_TYPES[kind] for kind in kinds)}"
        case "required":
            message = f"{where} has no {' and no '.join(_missing(error))}"
        case "additionalProperties":
            message, description = f"{where} is unknown", did_you_mean(unknown[0], error.schema.get("properties") or ())
        case "enum":
            known = [str(word) for word in limit if word not in (None, "")]
            message = f"{where} is {value}, which is none of {', '.join(known)}"
        case "minimum" | "maximum":
            message = f"{where} is {value}, {'less' if error.validator == 'minimum' else 'more'} than {limit}"
        case "minItems" | "minLength" | "minProperties":
            message = f"{where} is too short" if error.instance else f"{where} is empty"
        case "maxItems" | "maxLength" | "maxProperties":
            message = f"{where} has more than {limit} {'characters' if isinstance(error.instance, str) else 'entries'}"
        case "unique" | "ascending":
            message = f"{where} {error.message}"
        case _:
            form = f", which does not match {limit}" if error.validator == "pattern" and not description else ""
            message = f"{where} is {value}{form}"
    return path, f"{message}; {description}" if description else message


def _empty(data: Any, error: Any) -> Iterator[tuple[Key, ...]]:
    """Give a value of a wrong type, or each required one that is missing, an empty value; yields their paths."""
    path = tuple(error.absolute_path)
    if error.validator == "type":
        value_under(data, path[:-1])[path[-1]] = _empty_value(error.schema)
        yield path
        return
    parent = value_under(data, path)
    for key in (key for key in _missing(error) if key not in parent):
        parent[key] = _empty_value((error.schema.get("properties") or {}).get(key, {}))
        yield (*path, key)


def _empty_value(schema: dict[str, Any]) -> Any:
    if reference := schema.get("$ref"):
        return _empty_value(_data()["definitions"][reference.rpartition("/")[2]])
    if "allOf" in schema:
        return _empty_value(schema["allOf"][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kinds: dict[str, Any] = {"object": {}, "array": [], "integer": 0, "number": 0, "boolean": False}
    return kinds.get(kind if isinstance(kind, str) else kind[0], "")


def _unexpected(error: Any) -> list[str]:
    """The unknown fields, if the error is about them."""
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return []
    return [key for key in error.instance if key not in (error.schema.get("properties") or {})]


@cache
def _validator(key: str) -> Any:
    # For formats that no schema here has, jsonschema would build 38 grammars as it is imported, in 1.2 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from jsonschema import Draft7Validator, FormatChecker, validators  # noqa: PLC0415 (heavy, and few check a tree)

    formats = FormatChecker(())
    formats.checks("schedule")(is_schedule)
    formats.checks("network", ValueError)(lambda text: bool(ip_network(text)))
    formats.checks("zone")(lambda text: text in available_timezones() or not available_timezones())
    extended = validators.extend(Draft7Validator, {"unique": _repeated, "ascending": _falling})
    return extended({**_all()[key], "definitions": _data()["definitions"]}, format_checker=formats)


def _repeated(_: Any, fields: list[str], items: Any, __: Any) -> Iterator[Any]:
    """An error for each item of a list whose fields have the values of another item's."""
    from jsonschema import ValidationError  # noqa: PLC0415

    known: list[Any] = []
    for index, item in enumerate(items if isinstance(items, list) else ()):
        values = [item.get(field) for field in fields] if isinstance(item, dict) else []
        if values in known and values[0] is not None:
            yield ValidationError(f"has {fields[0]} {values[0]} twice", path=[index])
        known.append(values)


def _falling(_: Any, fields: list[str], data: Any, __: Any) -> Iterator[Any]:
    """An error if a number or duration of an object is more than the next one."""
    from jsonschema import ValidationError  # noqa: PLC0415

    values = [data.get(field) for field in fields] if isinstance(data, dict) else []
    for index, (low, high) in enumerate(pairwise(zip(map(_size, values), values, strict=True))):
        if low[0] is not None and high[0] is not None and low[0] > high[0]:
            yield ValidationError(f"is more than {fields[index + 1]} {high[1]}", path=[fields[index]])


def _size(value: Any) -> float | None:
    """A number, or the seconds of a duration such as 1h30m; None for anything else."""
    if isinstance(value, int):
        return value
    parts = re.findall(r"([0-9.]+)([hms])", value) if isinstance(value, str) else []
    seconds = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * seconds[unit] for number, unit in parts) if parts else None


@cache
def _all() -> dict[str, Any]:
    """The schemas of kinds and, by their names, of the files and kinds that are not for the cluster."""
    return {**_data()["kinds"], **_data()["others"]}


def _key(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    return f"{group}/{version}/{kind}"
