"""JSON 6902 patches, as kustomize and Argo CD apply them, on plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.errors import Rejected
from fluobook.kubernetes import json_patch

if TYPE_CHECKING:
    from fluobook.kubernetes.json_patch import Operation


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
        return json_patch.apply(data, operations)
    except json_patch.PatchError as error:
        raise Rejected(
            f"a patch does not fit {what}: {error}",
            system="kustomize",
            remedy="compare the patch's paths with the object",
        ) from error


def deletes(patch: Any) -> bool:
    """Whether a strategic merge patch takes its whole object away."""
    return isinstance(patch, dict) and patch.get("$patch") == "delete"
