"""Bodies of requests as objects, with what is said twice in them, and refusals of what cannot be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.kube import protobuf
from fluobook_lab.kube.errors import bad_request, unsupported_media, unsupported_patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.errors import ApiError

_ACCEPTED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
STRATEGIC = "application/strategic-merge-patch+json"
_SHOWN = 30
"""Bytes of a body that an error shows."""
_HEADS = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
_AFTER = {
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting value": "looking for beginning of value",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Extra data": "after top-level value",
}


@dataclass(frozen=True)
class Body:
    """What a request carries.

    Args:
        value: as JSON; None if there is no body.
        twice: what is wrong about it for a strict reader: members that stand there more than once.
    """

    value: Any = None
    twice: tuple[str, ...] = ()


class _Twice(dict[str, Any]):
    """An object with a member that came again."""

    keys_twice: tuple[str, ...] = ()


def read(data: bytes, media: str, kind: str, *, patch: str = "") -> Body:
    """A body.

    Args:
        data: its bytes.
        media: its media type, without parameters.
        kind: what it should be, for the error; "" if that is not to be told.
        patch: the media type of a patch, "" if it is none.

    Raises:
        ApiError: 400, it cannot be read; 415, it is of a type that is not taken.
    """
    if data.startswith(protobuf.MAGIC):
        return Body(protobuf.decode(data))
    if "yaml" in media:
        return _yaml(data)
    if "json" in media or media == "application/octet-stream":
        return _json(data, kind, patch=patch)
    if patch:
        raise unsupported_patch()
    raise unsupported_media(_ACCEPTED)


def _json(data: bytes, kind: str, *, patch: str) -> Body:
    try:
        value = json.loads(data, object_pairs_hook=_object)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(data, _go_words(data, error), kind, patch=patch) from error
    if not patch and not isinstance(value, dict) and value is not None:
        words = f"json: cannot unmarshal {_type_name(value)} into Go value of type {_HEADS}"
        raise _unreadable(data, words, kind, patch=patch)
    return Body(
        {} if value is None and not patch else value, tuple(f'duplicate field "{path}"' for path in _paths(value))
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = _Twice(pairs)
    if len(found) == len(pairs):
        return dict(found)
    seen: set[str] = set()
    found.keys_twice = tuple(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return found


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, _Twice):
        yield from (f"{path}.{key}" if path else key for key in dict.fromkeys(value.keys_twice))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]")


def _type_name(value: Any) -> str:
    return {list: "array", str: "string", bool: "bool"}.get(type(value), "number")


def _go_words(data: bytes, error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return "invalid UTF-8"
    if error.pos >= len(error.doc) or not data:
        return "unexpected end of JSON input"
    return f"invalid character {error.doc[error.pos]!r} {_AFTER.get(error.msg, error.msg)}"


def _unreadable(data: bytes, words: str, kind: str, *, patch: str) -> ApiError:
    if patch:
        return bad_request(words if patch == STRATEGIC else f"error decoding patch: {words}")
    words = f"couldn't get version/kind; json parse error: {words}"
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): {words} ({_shown(data)})" if kind else words
    )


def _shown(data: bytes) -> str:
    if not data:
        return "<empty>"
    begin, more = data[:_SHOWN], " ..." if len(data) > _SHOWN else ""
    return (begin.decode(errors="replace") if begin.startswith(b"{") else begin.hex()) + more


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML and remembers members that came again."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.twice: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                self.twice.append(f'  line {key.start_mark.line + 1}: key "{key.value}" already set in map')
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


def _yaml(data: bytes) -> Body:
    loader = _Loader(data)
    try:
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        line = mark.line if (mark := getattr(error, "problem_mark", None)) else 0
        why = f"yaml: line {line}: {getattr(error, 'problem', error)}"
        raise bad_request(f"error decoding YAML: error converting YAML to JSON: {why}") from error
    finally:
        loader.dispose()
    twice = "\n".join(["yaml: unmarshal errors:", *loader.twice]) if loader.twice else ""
    return Body(_named(value), (twice,) if twice else ())


def _named(value: Any) -> Any:
    """A value whose members have names, as JSON wants it: YAML takes `yes` for a truth and 1 for a number."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): _named(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
