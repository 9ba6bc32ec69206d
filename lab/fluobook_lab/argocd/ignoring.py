"""Differences that an Application, or Argo CD as a whole, is told to overlook (`ignoreDifferences`)."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.objects import clone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.argocd.names import Key
    from fluobook_lab.kube.objects import Obj

Path = tuple[str, ...]
EACH = "[]"
"""A step into every item of a list."""
LAST_APPLIED = ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
UNCOMPARED = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")


def paths(key: Key, rules: Iterable[Mapping[str, Any]]) -> tuple[Path, ...]:
    """The paths to overlook in one object.

    Args:
        key: the object's.
        rules: entries of `spec.ignoreDifferences`: group, kind, name, namespace, jsonPointers, jqPathExpressions.
    """
    found: list[Path] = []
    for rule in rules:
        if _fits(key, rule):
            found += [_pointer(text) for text in rule.get("jsonPointers") or ()]
            found += [path for text in rule.get("jqPathExpressions") or () if (path := _jq(text))]
    return tuple(found)


def comparable(obj: Obj, overlooked: Iterable[Path]) -> Obj:
    """An object without its status, what the server keeps about it, and what is overlooked."""
    kept = {name: clone(value) for name, value in obj.items() if name not in {"status", "metadata", "apiVersion"}}
    kept["metadata"] = {name: clone(value) for name, value in obj["metadata"].items() if name not in UNCOMPARED}
    for path in (LAST_APPLIED, *overlooked):
        _remove(kept, path)
    return kept


def respecting(target: Obj, live: Obj, overlooked: Iterable[Path]) -> Obj:
    """The target with the live values at the overlooked paths, so that a sync leaves them alone."""
    result = clone(target)
    for path in overlooked:
        if EACH in path:
            continue
        _remove(result, path)
        value = _at(live, path)
        if value is not None:
            _set(result, path, clone(value))
    return result


def _fits(key: Key, rule: Mapping[str, Any]) -> bool:
    return (
        fnmatch.fnmatchcase(key.group, rule.get("group") or "")
        and fnmatch.fnmatchcase(key.kind, rule.get("kind") or "*")
        and rule.get("name") in (None, "", key.name)
        and rule.get("namespace") in (None, "", key.namespace)
    )


def _pointer(text: str) -> Path:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.strip("/").split("/"))


def _jq(text: str) -> Path:
    """The plain paths of jq: `.spec.ports[].nodePort`, `.metadata.annotations["a.b/c"]`; () for anything else."""
    if not re.fullmatch(r"(\.[\w-]+|\.?\[\]|\.?\[\"[^\"]+\"\])+", text.strip()):
        return ()
    steps = re.findall(r"\[\"([^\"]+)\"\]|(\[\])|\.([\w-]+)", text)
    return tuple(EACH if each else quoted or name for quoted, each, name in steps)


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else _item(value, step)
    return value


def _item(value: Any, step: str) -> Any:
    inside = isinstance(value, list) and step.isdigit() and int(step) < len(value)
    return value[int(step)] if inside else None


def _set(value: Any, path: Path, new: Any) -> None:
    for step in path[:-1]:
        value = value.setdefault(step, {}) if isinstance(value, dict) else _item(value, step)
    if isinstance(value, dict):
        value[path[-1]] = new


def _remove(value: Any, path: Path) -> None:
    if not path or value is None:
        return
    step, rest = path[0], path[1:]
    if step == EACH:
        for item in value if isinstance(value, list) else ():
            _remove(item, rest)
    elif isinstance(value, list):
        _remove(_item(value, step), rest)
    elif isinstance(value, dict) and step in value:
        if rest:
            _remove(value[step], rest)
        else:
            del value[step]
