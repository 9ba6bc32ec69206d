"""Schemas of Kubernetes' own kinds and of the custom resources in the tree, and what does not match them.

tools/schemas/build.py generates schemas.json.xz; shapes.yaml, for kinds without a schema, is written by hand.
Structure only: the checks of webhooks are not in it.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Key

_BUILT_IN = ".k8s.io"
_UNSUFFIXED = {"", "apps", "autoscaling", "batch", "policy", "extensions"}
_THIRD_PARTY = {"gateway.networking.k8s.io"}


@cache
def _data() -> dict[str, Any]:
    """The packed schemas, and those written by hand for kinds without one."""
    folder = files("fluobook.gitops").joinpath("data")
    data = json.loads(lzma.decompress(folder.joinpath("schemas.json.xz").read_bytes()))
    own = yaml.safe_load(folder.joinpath("shapes.yaml").read_text())
    return {**data, "kinds": data["kinds"] | _closed(own["kinds"]), "cluster": data["cluster"] + own["cluster"]}


def _closed(schema: Any) -> Any:
    """A schema that refuses the fields it does not name, wherever it names some."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {**closed, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed


def is_known(api_version: str, kind: str) -> bool:
    """Whether there is a schema for that kind in that version."""
    return _key(api_version, kind) in _data()["kinds"]


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


def problems(data: dict[str, Any]) -> Iterator[tuple[tuple[Key, ...], str]]:
    """What does not match the schema of the object's kind: path and message. Nothing for a kind without a schema."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 (see `_validator`)

    validator = _validator(_key(str(data.get("apiVersion", "")), str(data.get("kind", ""))))
    if validator is None:
        return
    for error in validator.iter_errors(data):
        best = best_match([error]) or error
        path = tuple(best.absolute_path)
        yield (*path, *_unexpected(best)[:1]), best.message


def _unexpected(error: Any) -> list[str]:
    """The unknown fields, if the error is about them."""
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return []
    return [key for key in error.instance if key not in (error.schema.get("properties") or {})]


@cache
def _validator(key: str) -> Any:
    from jsonschema import Draft7Validator  # noqa: PLC0415 (it takes a second to import, which every kernel would pay)

    kinds = _data()["kinds"]
    if key not in kinds:
        return None
    return Draft7Validator({**kinds[key], "definitions": _data()["definitions"]})


def _key(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    return f"{group}/{version}/{kind}"
