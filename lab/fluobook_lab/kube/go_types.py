"""Values of wrong types in the words of Go's JSON decoder, whose structs the schemas describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.objects import Obj

_KINDS = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
_FITS: dict[str, tuple[type, ...]] = {"object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,)}


@dataclass(frozen=True)
class _Place:
    """Where the decoder stands: the struct whose field it fills, and the path of fields to there."""

    struct: str
    path: tuple[str, ...] = ()

    def wrong(self, value: Any, schema: Obj) -> str:
        kind = _KINDS.get(type(value), "")
        shown = f"number {value}" if isinstance(value, float) else kind
        where = f"Go struct field {self.struct}.{'.'.join(self.path)}" if self.path else "Go value"
        return f"json: cannot unmarshal {shown} into {where} of type {_type_of(schema)}"


def undecodable(obj: Obj, schema: Obj, kind: str) -> str:
    """The first value of an object that no struct of that kind can hold, "" if there is none."""
    return next(_walk(obj, schema, _Place(kind)), "")


def _walk(value: Any, schema: Obj, place: _Place) -> Iterator[str]:
    target = schemas.resolve(schema)
    if value is None or "oneOf" in target or target.get("x-kubernetes-int-or-string"):
        return
    if not _fits(value, target):
        yield place.wrong(value, schema)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, target.get("items") or {}, place)
    elif isinstance(value, dict):
        name = _name(schema) or place.struct
        for key, item in value.items():
            if (below := target.get("properties", {}).get(key)) is not None:
                yield from _walk(item, below, _Place(name, (*place.path, key)))
            elif isinstance(extra := target.get("additionalProperties"), dict):
                yield from _walk(item, extra, place)


def _fits(value: Any, schema: Obj) -> bool:
    kind = schema.get("type", "")
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _FITS[kind]) if kind in _FITS else True


def _name(schema: Obj) -> str:
    return str(schema.get("$ref", "")).rpartition(".")[2]


def _type_of(schema: Obj) -> str:
    """The Go type behind a schema: `int32`, `[]v1.Container`, `map[string]string`."""
    if ref := schema.get("$ref"):
        return ".".join(ref.split(".")[-2:])
    kind = schema.get("type")
    if kind == "array":
        return "[]" + _type_of(schema.get("items") or {})
    if kind == "object":
        extra = schema.get("additionalProperties")
        return "map[string]" + (_type_of(extra) if isinstance(extra, dict) else "interface {}")
    if kind == "integer":
        return str(schema.get("format", "int64"))
    text = "[]uint8" if schema.get("format") == "byte" else "string"
    return {"boolean": "bool", "number": "float64"}.get(kind or "", text)
