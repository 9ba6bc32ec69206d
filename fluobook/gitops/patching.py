"""JSON 6902 patches, as kustomize and Argo CD apply them, on plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jsonpatch

from fluobook.errors import Rejected

Operation = dict[str, Any]
MISSING: Any = object()
"""What `value_at` answers where there is nothing."""


@dataclass(frozen=True)
class Patch:
    """Operations on one object, named by kind and name."""

    kind: str
    name: str
    operations: tuple[Operation, ...]

    def for_kustomize(self) -> dict[str, Any]:
        """As an entry of `patches`, in a kustomization or in an Application's source."""
        return {"target": {"kind": self.kind, "name": self.name}, "patch": json.dumps(list(self.operations))}


def apply(data: dict[str, Any], operations: tuple[Operation, ...], what: str) -> dict[str, Any]:
    """The data with the operations done; the data itself stays as it is.

    Args:
        data: an object.
        operations: JSON 6902 operations.
        what: the object's name, for an error.

    Raises:
        Rejected: an operation does not fit the data, as kustomize would refuse it too.
    """
    try:
        return jsonpatch.apply_patch(data, list(operations))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise Rejected(
            f"a patch does not fit {what}: {error}",
            system="kustomize",
            remedy="compare the patch's paths with the object",
        ) from error


def value_at(data: Any, pointer: str) -> Any:
    """What stands at a JSON pointer, or `MISSING`."""
    for step in steps(pointer):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return MISSING
    return data


def steps(pointer: str) -> list[str]:
    """The steps of a JSON pointer: "/a/b~1c" → ["a", "b/c"]."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def deletes(patch: Any) -> bool:
    """Whether a strategic merge patch takes its whole object away."""
    return isinstance(patch, dict) and patch.get("$patch") == "delete"
