"""The shapes of Kubernetes' own kinds and of the custom resources that the tree uses, and what does not fit them.

tools/schemas/build.py makes schemas.json.xz; shapes.yaml, for kinds without one, is written by hand. Structure only:
what a webhook would refuse is not in it.
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
    """The packed shapes, and those written by hand for kinds without one."""
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
    """Whether there is a shape for that kind in that version."""
    return _key(api_version, kind) in _data()["kinds"]


def is_built_in(api_version: str) -> bool:
    """Whether the API group is one of Kubernetes' own, which a cluster serves without any CRD."""
    group = api_version.rpartition("/")[0]
    return group in _UNSUFFIXED or (group.endswith(_BUILT_IN) and group not in _THIRD_PARTY)


def is_cluster_scoped(group: str, kind: str) -> bool:
    """Whether objects of that kind have no namespace; False for a kind that is not known."""
    return f"{group}/{kind}" in _data()["cluster"]


def has_group(api_version: str) -> bool:
    """Whether there are shapes for kinds of that group: one that is not among them is likely misspelt."""
    group = api_version.rpartition("/")[0]
    return any(key.startswith(f"{group}/") for key in _data()["kinds"])


def versions_of(api_version: str, kind: str) -> list[str]:
    """The versions in which the cluster does serve a kind of that group, newest last."""
    group = api_version.rpartition("/")[0]
    keys = (key.split("/") for key in _data()["kinds"])
    return sorted(version for found, version, name in keys if (found, name) == (group, kind))


def problems(data: dict[str, Any]) -> Iterator[tuple[tuple[Key, ...], str]]:
    """What does not fit the shape of the object's kind: where, and why. Nothing for a kind without a shape."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 (see `_validator`)

    validator = _validator(_key(str(data.get("apiVersion", "")), str(data.get("kind", ""))))
    if validator is None:
        return
    for error in validator.iter_errors(data):
        best = best_match([error]) or error
        path = tuple(best.absolute_path)
        yield (*path, *_unexpected(best)[:1]), best.message


def _unexpected(error: Any) -> list[str]:
    """The fields that a schema does not have, where that is what is wrong."""
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
