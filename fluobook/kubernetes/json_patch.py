"""JSON patch (RFC 6902) and JSON pointers (RFC 6901) on plain data."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import jsonpatch

Operation = dict[str, Any]
LONGEST_REASON = 200
_WHOLE = re.compile(r" in [\[{].*", re.DOTALL)
"""The data, which errors end with: it may be long, and contain secrets."""
MISSING: Any = object()
"""The result of `value_at` where there is no value."""


class PatchError(ValueError):
    """An operation does not match the data, or is malformed."""


def apply(data: Any, operations: Iterable[Operation]) -> Any:
    """The data with all operations applied; the given data stays unchanged.

    Raises:
        PatchError: an operation does not match.
    """
    result = copy.deepcopy(data)
    for operation in operations:
        try:
            result = jsonpatch.apply_patch(result, [operation], in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            raise PatchError(f"{_named(operation)}: the value is another") from None
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, ValueError) as error:
            raise PatchError(f"{_named(operation)}: {_WHOLE.sub('', str(error))[:LONGEST_REASON]}") from error
    return result


def _named(operation: Any) -> str:
    """An operation for a person, without its value."""
    if not isinstance(operation, dict):
        return "an operation that is no object"
    return " ".join(str(operation[key]) for key in ("op", "path") if key in operation) or "an operation without a path"


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
