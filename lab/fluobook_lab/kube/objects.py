"""Kubernetes objects as plain JSON: copying, times, paths and accessors; and the package's data files."""

from __future__ import annotations

import datetime as dt
import functools
import re
from importlib import resources
from typing import Any

import yaml

Obj = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON."""


CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
"""The label, and the key of the taint, of control planes."""
SERVICES = ("", "services")
"""Where Services are stored."""


def clone(value: Any) -> Any:
    """A deep copy of JSON; several times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    return [clone(item) for item in value] if isinstance(value, list) else value


def timestamp(when: dt.datetime | None = None, *, micro: bool = False) -> str:
    """RFC 3339 in UTC as the API writes it; now by default. `micro` is the form of leases."""
    when = when or dt.datetime.now(dt.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def data_file(name: str) -> Any:
    """The content of a YAML file of this package, not to be changed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((resources.files(__package__) / name).read_text(), loader)  # noqa: S506  (both are safe)


_STEP = re.compile(
    r"""\.?(?P<name>[\w$-]+)|\['(?P<quoted>[^']+)'\]|\[(?P<index>-?\d+|\*)\]|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


def json_path(obj: Any, path: str) -> Any:
    """The value at a simple JSONPath: members, indices, and filters that compare with a string; None if absent."""
    for step in _STEP.finditer(path):
        obj = _step(obj, step)
        if obj is None:
            return None
    return obj


def _step(obj: Any, step: re.Match[str]) -> Any:
    if name := step["name"] or step["quoted"]:
        return obj.get(name) if isinstance(obj, dict) else None
    if not isinstance(obj, list):
        return None
    if step["key"]:
        return next((item for item in obj if json_path(item, "." + step["key"]) == step["value"]), None)
    index = 0 if step["index"] == "*" else int(step["index"])
    return obj[index] if -len(obj) <= index < len(obj) else None


def name_of(obj: Obj) -> str:
    """Its name."""
    return obj["metadata"]["name"]


def namespace_of(obj: Obj) -> str:
    """Its namespace, "" if it has none."""
    return obj["metadata"].get("namespace", "")


def labels_of(obj: Obj) -> dict[str, str]:
    """Its labels."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    """Its annotations."""
    return obj["metadata"].get("annotations") or {}


def condition(obj: Obj, kind: str) -> Obj | None:
    """The condition of that type in the object's status."""
    return next((c for c in (obj.get("status") or {}).get("conditions") or [] if c.get("type") == kind), None)


def is_true(obj: Obj, kind: str) -> bool:
    """Whether the object has a condition of that type with status "True"."""
    entry = condition(obj, kind)
    return entry is not None and entry.get("status") == "True"


def with_condition(conditions: list[Obj], kind: str, status: str, reason: str, message: str = "") -> list[Obj]:
    """The conditions with one set; its transition time changes only with its status."""
    old = next((c for c in conditions if c["type"] == kind), None)
    same = old is not None and old["status"] == status
    since = old["lastTransitionTime"] if old is not None and same else timestamp()
    new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
    if old is None:
        return [*conditions, new]
    return [{**c, **new} if c is old else c for c in conditions]


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference of the object's controller."""
    return next((ref for ref in obj["metadata"].get("ownerReferences") or [] if ref.get("controller")), None)


def claims_of(pod: Obj) -> list[str]:
    """The names of the claims that a pod uses; those of its ephemeral volumes have the pod's name in theirs."""
    claims = []
    for volume in pod["spec"].get("volumes") or []:
        if volume.get("ephemeral"):
            claims.append(f"{name_of(pod)}-{volume['name']}")
        elif claim := volume.get("persistentVolumeClaim"):
            claims.append(claim["claimName"])
    return claims


def owner_reference(owner: Obj) -> Obj:
    """The reference that makes `owner` the controller of an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
