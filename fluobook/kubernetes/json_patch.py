"""JSON patch (RFC 6902) and JSON pointers (RFC 6901) on plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonpatch

Operation = dict[str, Any]
MISSING: Any = object()
"""The result of `value_at` where there is no value."""


class PatchError(ValueError):
    """An operation does not match the data, or is malformed."""


def apply(data: Any, operations: Iterable[Operation]) -> Any:
    """The data with all operations applied; the given data stays unchanged.

    Raises:
        PatchError: an operation does not match.
    """
    try:
        return jsonpatch.apply_patch(data, list(operations))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, ValueError) as error:
        raise PatchError(str(error)) from error


def value_at(data: Any, pointer: str) -> Any:
    """The value at a JSON pointer, or `MISSING`."""
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
