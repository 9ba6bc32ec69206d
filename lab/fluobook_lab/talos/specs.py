"""Specifications of resources in protobuf, for typed clients; `talosctl get` and fluobook read the YAML beside it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct

from fluobook_lab.data import table

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLE = table("talos/specs.yaml")
_CHOICES: dict[str, dict[str, int]] = _TABLE["numbers"] | {
    name: {text: number for number, text in enumerate(texts)} for name, texts in _TABLE["choices"].items()
}
_VARINT, _BYTES = 0, 2
"""The wire types of protobuf that are used."""


def encoded(type_: str, spec: Any) -> bytes:
    """The specification of a resource in protobuf; nothing for types that the lab's nodes do not have."""
    fields = _TABLE["types"].get(type_, {})
    return _message(fields, {"": spec} if "" in fields else spec) if fields else b""


def _message(fields: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes:
    """A message of the fields that have numbers."""
    parts = []
    for name, value in spec.items():
        number, kind = entry if isinstance(entry := fields.get(name), list) else (entry, None)
        for each in value if isinstance(value, list) else [value]:
            parts += [_field(number, kind, each)] if number and each not in ("", None) else []
    return b"".join(parts)


def _field(number: int, kind: Any, value: Any) -> bytes:
    if isinstance(kind, str) and kind in _CHOICES:
        value = _CHOICES[kind][value]
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    content = _content(kind, value)
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _content(kind: Any, value: Any) -> bytes:
    if isinstance(kind, dict):
        return _message(kind, value)
    if kind == "manifest":
        struct = Struct()
        struct.update(value)
        return _field(1, None, struct.SerializeToString())
    if kind == "address":
        return _field(1, None, ip_address(value).packed)
    if kind == "prefix":
        interface = ip_interface(value)
        return _field(1, None, interface.ip.packed) + _field(2, None, interface.network.prefixlen)
    if kind == "mac":
        return bytes.fromhex(value.replace(":", ""))
    return value if isinstance(value, bytes) else str(value).encode()


def _varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    septets = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(septet | 0x80 for septet in septets[:-1]), septets[-1]])
