"""LabelSelector objects (`matchLabels`, `matchExpressions`), evaluated as the API server evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector matches these labels; an empty selector matches everything, None nothing.

    Raises:
        ValueError: the selector has an unknown operator.
    """
    if selector is None:
        return False
    exact = (selector.get("matchLabels") or {}).items()
    requirements = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in exact) and all(
        meets(requirement, labels) for requirement in requirements
    )


def meets(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet one requirement: `key`, `operator` (In, NotIn, Exists, DoesNotExist) and `values`.

    Raises:
        ValueError: the operator is unknown.
    """
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"unknown operator {requirement['operator']}")
