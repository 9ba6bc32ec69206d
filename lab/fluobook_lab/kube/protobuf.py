r"""Reads the bodies that kubectl and helm send as protobuf; they take JSON answers, but never retry in JSON.

A body is `k8s\0` and a runtime.Unknown that holds the object. Field numbers come from Kubernetes' own .proto files;
where a message's field is no property of the kind's schema, Go embeds it, so its members belong to the outer object.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.errors import bad_request, unsupported_media
from fluobook_lab.kube.objects import data_file, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook_lab.kube.objects import Obj

MAGIC = b"k8s\0"

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_SIGNED = {"int32", "int64"}
_POINTERS = frozenset(data_file("kinds.yaml")["pointers"])
"""Fields where zero or false is something that was said, because they are pointers in Go."""
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_MORE = 0x80


def decode(body: bytes) -> Obj:
    """The object in a protobuf body.

    Raises:
        ApiError: 400, it is damaged; 415, its kind is not known.
    """
    try:
        envelope = dict(_fields(body[len(MAGIC) :]))
        head = {number: value.decode() for number, value in _fields(envelope[1])}
        api_version, kind = head.get(1, ""), head.get(2, "")
        message = _message(api_version, kind)
        return {"apiVersion": api_version, "kind": kind, **_decoded(envelope.get(2, b""), message)}
    except (KeyError, IndexError, struct.error, UnicodeDecodeError, AttributeError) as error:
        raise bad_request(f"the protobuf body cannot be decoded: {error!r}") from error


def _message(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    schema = schemas.schema_name(group, version, kind)
    name = "k8s.io." + schema.removeprefix("io.k8s.") if schema else f"{_META}{kind}"
    if name not in schemas.data()["messages"]:
        raise unsupported_media("application/json, application/yaml")
    return name


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = 8 if wire == _FIXED64 else 4
            value, at = data[at : at + size], at + size
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte % _MORE) << shift
        if byte < _MORE:
            return result, at
        shift += 7


def _decoded(data: bytes, message: str) -> Any:
    if special := _SPECIAL.get(message):
        return special(data)
    numbers = schemas.data()["messages"].get(message, {})
    result: Obj = {}
    for number, value in _fields(data):
        if str(number) in numbers:
            _put(result, message, numbers[str(number)], value)
    if set(result) == {"items"} and list(numbers) == ["1"]:  # a Go slice type, such as ExtraValue
        return result["items"]
    return result


def _put(result: Obj, message: str, field: list[str], value: Any) -> None:
    name, label, kind = field
    key = _json_name(message, name)
    if key is None:
        result.update(_decoded(value, kind) if isinstance(value, bytes) and "." in kind and label == "optional" else {})
    elif label == "map":
        entry = dict(_fields(value))
        result.setdefault(key, {})[entry.get(1, b"").decode()] = _value(entry.get(2, b""), kind)
    elif label == "repeated":
        result.setdefault(key, []).append(_value(value, kind))
    elif (decoded := _value(value, kind)) not in ("", None) and (value != 0 or _is_said(message, key)):
        result[key] = decoded


def _is_said(message: str, key: str) -> bool:
    """Whether a zero or false means something: protobuf carries it for every field that is no pointer in Go."""
    return key in _POINTERS or key in _schema(message).get("required", ())


def _json_name(message: str, name: str) -> str | None:
    """The JSON member of a field; None if it is embedded, or too new for the schema."""
    properties = _schema(message).get("properties")
    if properties is None or name in properties:
        return name
    return next((known for known in properties if known.lower() == name.lower()), None)


def _schema(message: str) -> Obj:
    return schemas.named("io.k8s." + message.removeprefix("k8s.io."))


def _value(value: Any, kind: str) -> Any:
    if kind == "string":
        return value.decode()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "bool":
        return bool(value)
    if kind in _SIGNED:
        return value - (1 << 64) if value >> 63 else value
    if kind == "double":
        return struct.unpack("<d", value)[0]
    return _decoded(value, kind)


def _time(data: bytes, *, micro: bool = False) -> str | None:
    numbers = dict(_fields(data))
    seconds = numbers.get(1)
    if not seconds or seconds >> 62:  # Go's zero time is far before 1970
        return None
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=numbers.get(2, 0) // 1000)
    return timestamp(moment, micro=micro)


def _quantity(data: bytes) -> str:
    return dict(_fields(data)).get(1, b"0").decode()


def _int_or_string(data: bytes) -> int | str:
    numbers = dict(_fields(data))
    return numbers.get(3, b"").decode() if numbers.get(1) else numbers.get(2, 0)


def _raw(data: bytes) -> Any:
    return json.loads(dict(_fields(data)).get(1, b"null"))


def _duration(data: bytes) -> str:
    return f"{dict(_fields(data)).get(1, 0) / 1e9:g}s"


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    f"{_META}Time": _time,
    f"{_META}MicroTime": partial(_time, micro=True),
    f"{_META}FieldsV1": _raw,
    f"{_META}Duration": _duration,
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _quantity,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": _raw,
}
