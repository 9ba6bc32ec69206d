"""Params files as plain data: read unambiguously, merged, and changed by `--set`.

papermill reads YAML 1.1, in which `on` is true, `1:30` is ninety and `010` is eight; YAML 1.2 has none of that. A file
that means different things in the two is refused, with the value.

Mappings merge key by key. Lists of named items merge by name, so that one node can be changed without repeating the
others. A reference to a secret is replaced as a whole, because it names exactly one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fluobook.errors import BadFile, ParamsError
from fluobook.files import INVALID, invalid, read_text, require_yaml
from fluobook.params.problems import Problem, did_you_mean, dotted, name_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST = 256 * 1024
"""Bytes of a params file: it is read slowly, in two versions of YAML."""
_REFERENCE = {"env", "file", "sops", "key"}
_FREE_KEYS = re.compile(r"(endpoints|trust|gitops\.mirrors|nodes\.[^.]+\.(?:labels|taints))\.(.+)")
"""Mappings whose keys contain dots: the rest of a path is one key."""
_TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))}
_QUOTE = "put texts in quotes, and write numbers in plain decimal"


class _AsPapermill(yaml.SafeLoader):
    """YAML 1.1 as papermill reads it: without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the base class's own shape)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str, origin: str) -> Any:
    """One YAML document as plain data.

    Args:
        text: the document.
        origin: its name in an error, such as the file's path.

    Raises:
        ParamsError: it is not YAML, has a key twice, or means different things in YAML 1.1 and 1.2.
    """
    try:
        return deepcopy(_parsed(text))
    except ParamsError:
        return _parse(text, origin)  # which names the file in the error


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """A document, read once: the two readers are slow, and the versions are read with every params file."""
    return _parse(text, "")


def _parse(text: str, origin: str) -> Any:
    try:
        require_yaml(text, origin)
        _require_json_types(text, origin)
        document = YAML(typ="safe", pure=True).load(text)
        other = yaml.load(text, _AsPapermill)  # noqa: S506 (a SafeLoader)
    except BadFile as error:
        raise _unreadable(origin, error) from None
    except (YAMLError, *INVALID) as error:
        raise _unreadable(origin, invalid(origin, "YAML", error, text)) from None
    if ambiguous := tuple(_differences((), document, other, document)):
        raise ParamsError(f"{origin} means different things in YAML 1.1 and 1.2", problems=tuple(map(str, ambiguous)))
    return document


def read(path: Path) -> Any:
    """The file at `path` as plain data.

    Raises:
        ParamsError: it cannot be read, or is wrong as in `parse_yaml`.
    """
    try:
        text = read_text(path, largest=LARGEST)
    except BadFile as error:
        line = f"line {error.line}: " if error.line else ""
        another = (
            "name a phase of params/ or a params file (fluobook plan phase1, fluobook plan site/params/berlin.yaml)"
        )
        remedy = error.remedy if path.is_file() else another
        raise ParamsError(f"cannot read {path}: {line}it {error.problem}", remedy=remedy) from None
    return parse_yaml(text, str(path))


def _require_json_types(text: str, origin: str) -> None:
    event: Any
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if getattr(event, "tag", None) not in _TAGS:
            problem = "has a tag for a type that JSON does not have, such as !!set"
            remedy = "write a text, a number, a list or a mapping, without a tag"
            raise BadFile(origin, problem, line=event.start_mark.line + 1, remedy=remedy)


def _differences(location: tuple[int | str, ...], ours: Any, theirs: Any, document: Any) -> Iterator[Problem]:
    if isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        for key in ours:
            yield from _differences((*location, key), ours[key], theirs[key], document)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences((*location, index), *pair, document)
    elif isinstance(ours, dict | list):
        yield Problem(
            dotted(location, document) or "the value", ours, "has keys that YAML 1.1 reads differently", _QUOTE
        )
    elif repr(ours) != repr(theirs):  # 1 and True are equal, .nan and .nan are not
        meaning = f"means {shown(ours)} in YAML 1.2 and {shown(theirs)} in YAML 1.1"
        remedy = "write true or false, or put a text in quotes" if isinstance(theirs, bool) else _QUOTE
        yield Problem(dotted(location, document) or "the value", ours, meaning, remedy)


def _unreadable(origin: str, error: BadFile) -> ParamsError:
    line = f"line {error.line}: " if error.line else ""
    return ParamsError(f"{origin}: one problem", problems=(f"{line}it {error.problem}",), remedy=error.remedy)


def with_value(text: str, keys: Sequence[str], value: str) -> str:
    """A params file with another value at a place; all else stays to the letter, comments too.

    Args:
        text: the file.
        keys: the place, such as ("platform", "versions", "kubernetes"); missing mappings are added.
        value: a text.

    Raises:
        ParamsError: there is something else than a mapping on the way, or one that is made elsewhere in the file.
    """
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    quoted = json.dumps(value)
    for depth, key in enumerate(keys):
        if not isinstance(node, yaml.MappingNode):
            break
        below = next((held for name, held in node.value if name.value == key), None)
        if below is None:
            entry = quoted
            for further in reversed(keys[depth + 1 :]):
                entry = f"{{{further}: {entry}}}"
            start = node.start_mark.index
            if node.flow_style:
                text = f"{text[: start + 1]}{key}: {entry}{', ' if node.value else ''}{text[start + 1 :]}"
            else:
                text = f"{text[:start]}{key}: {entry}\n{' ' * node.start_mark.column}{text[start:]}"
            break
        node = below
    else:
        text = text[: node.start_mark.index] + quoted + text[node.end_mark.index :]
    written: Any = parse_yaml(text, "the changed params file")
    for key in keys:
        written = written.get(key) if isinstance(written, dict) else None
    if written != value:
        raise ParamsError(f"{'.'.join(keys)} cannot be changed to {value}", remedy="write it into the params file")
    return text


def merged(below: Any, above: Any) -> Any:
    """`below` with the values of `above`; neither is changed."""
    if isinstance(below, Mapping) and isinstance(above, Mapping) and not set(above) <= _REFERENCE:
        return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
    if isinstance(above, list | tuple) and above and all(map(name_of, above)) and isinstance(below, list | tuple):
        return _merged_by_name(below, above)
    return below if isinstance(above, Mapping) and not above else above


def with_overrides(platform: Mapping[str, Any], overrides: tuple[str, ...]) -> Any:
    """The platform as written, with each `--set` applied in order.

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
            empty = "there is an empty key in the path" if path.strip() else "there is no key before the ="
            missing = empty if equals else "there is no = in it"
            raise _invalid(override, f"{missing}; write path=value, such as network.vip=10.10.0.5")
        try:
            parsed = parse_yaml(value, f"--set {path}")
        except ParamsError as error:
            raise ParamsError(error.message, problems=error.problems, remedy="correct the value of --set") from None
        if parsed == {}:
            raise _invalid(override, "an empty mapping changes nothing: edit the file")
        result = merged(result, _nested(keys, parsed, result, path))
    return result


def _keys(path: str) -> list[str]:
    if free := _FREE_KEYS.fullmatch(path):
        return [*free[1].split("."), free[2].strip("'\"")]
    return path.split(".")


def _nested(keys: list[str], value: Any, current: Any, path: str) -> Any:
    if not keys:
        return value
    key, *rest = keys
    if isinstance(current, list | tuple):
        items = {name_of(item): item for item in current}
        if key not in items:
            raise _invalid(path, f"no item is named {key!r}; {did_you_mean(key, items)}")
        label = "name" if "name" in items[key] else "host"
        if not rest:
            raise _invalid(path, f"name a key of {key!r}, such as {path}.memory_gib=16")
        if rest == [label]:
            raise _invalid(path, f"a {label} cannot be set, because items go by it; change it in the file")
        return [{label: key, **_nested(rest, value, items[key], path)}]
    return {key: _nested(rest, value, current.get(key) if isinstance(current, Mapping) else None, path)}


def _invalid(path: str, problem: str) -> ParamsError:
    return ParamsError("a --set is invalid", problems=(f"--set {path}: {problem}",), remedy="write --set path=value")


def _merged_by_name(below: list[Any] | tuple[Any, ...], above: list[Any] | tuple[Any, ...]) -> list[Any]:
    known = {name_of(item): item for item in below}
    over = {name_of(item): item for item in above}
    changed = [merged(item, over[name_of(item)]) if name_of(item) in over else item for item in below]
    return changed + [item for name, item in over.items() if name not in known]
