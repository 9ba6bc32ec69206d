"""One mapping laid over another, and `--set key=value` as such a mapping.

Mappings merge key by key. Lists of named things merge by name, so that one node can be changed without repeating
the others. A reference to a secret is replaced as a whole, because it names exactly one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluobook.errors import ParamsError
from fluobook.params.problems import did_you_mean, named
from fluobook.params.reading import parse_yaml

_REFERENCE = {"env", "file", "sops", "key"}
_FREE_KEYS = (("endpoints",), ("trust",), ("gitops", "mirrors"))
"""Mappings whose keys hold dots of their own: the rest of a path is one key."""


def merged(below: Any, above: Any) -> Any:
    """`above` laid over `below`; neither is changed."""
    if isinstance(below, Mapping) and isinstance(above, Mapping) and not set(above) <= _REFERENCE:
        return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
    if isinstance(above, list | tuple) and above and all(map(named, above)) and isinstance(below, list | tuple):
        return _merged_by_name(below, above)
    return below if isinstance(above, Mapping) and not above else above


def with_overrides(platform: Mapping[str, Any], overrides: tuple[str, ...]) -> Any:
    """The platform as written, with each `--set` laid over it in turn.

    Args:
        platform: the platform as written.
        overrides: "path=value"; items of lists go by name, the value is YAML: "nodes.talos-worker-1.memory_gib=16".

    Raises:
        ParamsError: an override is malformed, or names an item that does not exist.
    """
    result: Any = platform
    for override in overrides:
        path, equals, value = override.partition("=")
        keys = _keys(path.strip().removeprefix("platform."))
        if not equals or not all(keys):
            missing = "no key stands before the =" if equals else "there is no = in it"
            raise _wrong(override, f"{missing}; what is meant is path=value, such as network.vip=10.10.0.5")
        result = merged(result, _nested(keys, parse_yaml(value, f"--set {path}"), result, path))
    return result


def _keys(path: str) -> list[str]:
    for free in _FREE_KEYS:
        prefix = ".".join(free) + "."
        if path.startswith(prefix):
            return [*free, path.removeprefix(prefix).strip("'\"")]
    return path.split(".")


def _nested(keys: list[str], value: Any, here: Any, path: str) -> Any:
    if not keys:
        return value
    key, *rest = keys
    if isinstance(here, list | tuple):
        items = {named(item): item for item in here}
        if key not in items:
            raise _wrong(path, f"no item is named {key!r}; {did_you_mean(key, items)}")
        label = "name" if "name" in items[key] else "host"
        return [{label: key, **_nested(rest, value, items[key], path)}] if rest else _replaced(key, path)
    return {key: _nested(rest, value, here.get(key) if isinstance(here, Mapping) else None, path)}


def _replaced(key: str, path: str) -> Any:
    raise _wrong(path, f"say which key of {key!r} is meant, such as {path}.memory_gib=16")


def _wrong(path: str, problem: str) -> ParamsError:
    return ParamsError("a --set is wrong", problems=(f"--set {path}: {problem}",), remedy="write --set path=value")


def _merged_by_name(below: list[Any] | tuple[Any, ...], above: list[Any] | tuple[Any, ...]) -> list[Any]:
    known = {named(item): item for item in below}
    over = {named(item): item for item in above}
    changed = [merged(item, over[named(item)]) if named(item) in over else item for item in below]
    return changed + [item for name, item in over.items() if name not in known]
