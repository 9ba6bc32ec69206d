"""Schemas of Kubernetes' own kinds and of the custom resources in the tree, and what does not match them.

tools/schemas/build.py generates schemas.json.xz; shapes.yaml, for kinds without a schema, is written by hand.
Structure only: the checks of webhooks are not in it.
"""

from __future__ import annotations

import json
import lzma
import sys
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fluobook.files import packaged
from fluobook.gitops.documents import value_under
from fluobook.params.problems import shown

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
    return {**data, "kinds": kinds, "others": others, "cluster": data["cluster"] + own["cluster"]}


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


def has_group(api_version: str) -> bool:
    """Whether there are schemas for kinds of that group: another kind is likely misspelt."""
    group = api_version.rpartition("/")[0]
    return any(key.startswith(f"{group}/") for key in _data()["kinds"])


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
    mismatches = list(dict.fromkeys(_mismatch(error, hidden=hidden) for error in errors))
    if encrypted:
        validator, compared = _validator("encrypted"), data
        errors = _errors(validator, data)
    emptied: list[tuple[Key, ...]] = []
    while wrong := [error for error in errors if error.validator in ("type", "required")]:
        compared = compared if emptied else deepcopy(compared)
        emptied += [path for error in wrong for path in _empty(compared, error)]
        errors = _errors(validator, compared)
    return compared, mismatches, emptied


def _errors(validator: Any, data: dict[str, Any]) -> list[Any]:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 (see `_validator`)

    return [best_match([error]) or error for error in validator.iter_errors(data)]


def _mismatch(error: Any, *, hidden: bool) -> Mismatch:
    path = (*error.absolute_path, *_unexpected(error)[:1])
    value, where = "a secret" if hidden else shown(error.instance), ".".join(map(str, path)) or "it"
    match error.validator:
        case "type":
            kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            message = f"{where} is {value}, not {' or '.join(_TYPES[kind] for kind in kinds)}"
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            message = f"{where} has no {' and no '.join(missing)}"
        case "pattern":
            form = "" if "description" in error.schema else f", which does not match {error.validator_value}"
            message = f"{where} is {value}{form}"
        case _:
            message = f"{where}: a secret of a wrong form" if hidden else f"{where}: {error.message}"
    return path, f"{message}; {error.schema['description']}" if "description" in error.schema else message


def _empty(data: Any, error: Any) -> Iterator[tuple[Key, ...]]:
    """Give a value of a wrong type, or each required one that is missing, an empty value; yields their paths."""
    path = tuple(error.absolute_path)
    if error.validator == "type":
        value_under(data, path[:-1])[path[-1]] = _empty_value(error.schema)
        yield path
        return
    parent = value_under(data, path)
    for key in (key for key in error.validator_value if key not in parent):
        parent[key] = _empty_value((error.schema.get("properties") or {}).get(key, {}))
        yield (*path, key)


def _empty_value(schema: dict[str, Any]) -> Any:
    if reference := schema.get("$ref"):
        return _empty_value(_data()["definitions"][reference.rpartition("/")[2]])
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
    from jsonschema import Draft7Validator  # noqa: PLC0415 (heavy, and few kernels check a tree)

    return Draft7Validator({**_all()[key], "definitions": _data()["definitions"]})


@cache
def _all() -> dict[str, Any]:
    """The schemas of kinds and, by their names, of the files and kinds that are not for the cluster."""
    return {**_data()["kinds"], **_data()["others"]}


def _key(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    return f"{group}/{version}/{kind}"
