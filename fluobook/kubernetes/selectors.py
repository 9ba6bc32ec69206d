"""LabelSelector objects (`matchLabels`, `matchExpressions`) as the API server evaluates them; the workloads of pods."""

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


def workload_of(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of the workload of a pod: not the ReplicaSet but its Deployment; "Pod" for one without any."""
    metadata = pod["metadata"]
    owner = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    if owner is None:
        return "Pod", str(metadata["name"])
    hashed = (metadata.get("labels") or {}).get("pod-template-hash")
    if owner["kind"] == "ReplicaSet" and hashed:
        return "Deployment", str(owner["name"]).removesuffix(f"-{hashed}")
    return str(owner["kind"]), str(owner["name"])


CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
"""The taint of a cordoned node."""


def tolerates(spec: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether a pod may come to a node in spite of a taint.

    Args:
        spec: the pod's spec.
        taint: one of the node's.

    Example:
        >>> tolerates({"tolerations": [{"operator": "Exists"}]}, CORDONED)
        True
    """
    return any(_accepts(toleration, taint) for toleration in spec.get("tolerations") or ())


def _accepts(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    return toleration["key"] == taint["key"] and (exists or toleration.get("value", "") == taint.get("value", ""))
