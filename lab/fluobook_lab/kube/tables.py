"""Objects as the tables that `kubectl get` prints; the columns themselves are in `columns`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.columns import COLUMNS, NONE, Column, age_since
from fluobook_lab.kube.columns_rare import RARE

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

_STEP = re.compile(
    r"""\.?(?P<name>[\w$-]+)|\['(?P<quoted>[^']+)'\]|\[(?P<index>-?\d+|\*)\]|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


@dataclass(frozen=True)
class TableFormat:
    """How rows are wanted: `include` is "Object", "Metadata" or "None"; `headers` is off after a watch's first row."""

    include: str = "Metadata"
    version: str = "meta.k8s.io/v1"
    headers: bool = True


def table(resource: Resource, items: list[Obj], metadata: Obj, form: TableFormat) -> Obj:
    """The `Table` of some objects."""
    columns = columns_of(resource)
    headers = _headers(resource, columns) if form.headers else None
    rows = [{"cells": [c.cell(obj) for c in columns], "object": _row_object(obj, form)} for obj in items]
    head = {"kind": "Table", "apiVersion": form.version, "metadata": metadata}
    return {**head, "columnDefinitions": headers, "rows": rows}


def _headers(resource: Resource, columns: tuple[Column, ...]) -> list[Obj]:
    told = schemas.columns(*resource.store_key) or [
        [c.name, c.type, c.format, c.priority, c.description] for c in columns
    ]
    keys = ("name", "type", "format", "priority", "description")
    return [dict(zip(keys, values, strict=True)) for values in told]


def _row_object(obj: Obj, form: TableFormat) -> Obj | None:
    if form.include == "None":
        return None
    return obj if form.include == "Object" else partial(obj, form.version)


def partial(obj: Obj, version: str = "meta.k8s.io/v1") -> Obj:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj["metadata"]}


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """A resource's columns: its own, those of its CustomResourceDefinition, or name and age."""
    if resource.custom and resource.columns:
        custom = tuple(_custom_column(column) for column in resource.columns)
        return (Column.NAME, *custom)
    found = COLUMNS.get(resource.store_key) or RARE.get(resource.store_key) or (Column.NAME, Column.AGE)
    told = schemas.columns(*resource.store_key)
    if told and len(told) != len(found):  # a kind that nothing of the platform has: what is not known is "<none>"
        known = {column.name: column for column in found}
        return tuple(known.get(name) or Column(name, lambda _: NONE) for name, *_ in told)
    return found


def _custom_column(told: Obj) -> Column:
    def cell(obj: Obj) -> Any:
        value = json_path(obj, told["jsonPath"])
        return age_since(value) if told["type"] == "date" and isinstance(value, str) else value

    return Column(told["name"], cell, told["type"], told.get("priority", 0), description=told.get("description", ""))


def json_path(obj: Any, path: str) -> Any:
    """What stands at a simple JSONPath: members, indices, and filters that compare with a text; None if nothing."""
    for step in _STEP.finditer(path):
        obj = _stepped(obj, step)
        if obj is None:
            return None
    return obj


def _stepped(obj: Any, step: re.Match[str]) -> Any:
    if name := step["name"] or step["quoted"]:
        return obj.get(name) if isinstance(obj, dict) else None
    if not isinstance(obj, list):
        return None
    if step["key"]:
        return next((item for item in obj if json_path(item, "." + step["key"]) == step["value"]), None)
    index = 0 if step["index"] == "*" else int(step["index"])
    return obj[index] if -len(obj) <= index < len(obj) else None
