"""Params files as plain data, read so that nobody understands them in another way.

papermill reads YAML 1.1, in which `on` is true, `1:30` is ninety and `010` is eight; YAML 1.2 has none of that.
A file that says different things to the two is refused, at the very value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fluobook.errors import ParamsError
from fluobook.params.problems import Problem, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        origin: what it is called in an error, such as the file's path.

    Raises:
        ParamsError: it is not YAML, has a key twice, or means different things in YAML 1.1 and 1.2.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
        other = yaml.load(text, _AsPapermill)  # noqa: S506 (a SafeLoader)
    except DuplicateKeyError as error:
        where = error.problem_mark
        line = f"line {where.line + 1}: " if where else ""
        raise ParamsError(f"{origin} has a key twice", problems=(line + _twice(error),)) from None
    except (YAMLError, yaml.YAMLError) as error:
        raise ParamsError(f"{origin} is not YAML", problems=(_marked(error),)) from None
    if ambiguous := tuple(_differences((), document, other, document)):
        raise ParamsError(f"{origin} says different things to YAML 1.1 and 1.2", problems=tuple(map(str, ambiguous)))
    return document


def read(path: Path) -> Any:
    """The file at `path` as plain data.

    Raises:
        ParamsError: it cannot be read, or is wrong as in `parse_yaml`.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        remedy = "name a phase of params/ or a params file (fluobook plan phase1, fluobook plan sites/berlin.yaml)"
        raise ParamsError(f"cannot read {path}", cause=cause, remedy=remedy) from None
    return parse_yaml(text, str(path))


def _differences(location: tuple[int | str, ...], ours: Any, theirs: Any, document: Any) -> Iterator[Problem]:
    if isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        for key in ours:
            yield from _differences((*location, key), ours[key], theirs[key], document)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences((*location, index), *pair, document)
    elif isinstance(ours, dict | list):
        yield Problem(dotted(location, document) or "the value", ours, "has keys that YAML 1.1 reads otherwise", _QUOTE)
    elif type(ours) is not type(theirs) or ours != theirs:
        meaning = f"means {shown(ours)} in YAML 1.2 and {shown(theirs)} in YAML 1.1"
        remedy = "write true or false, or put a text in quotes" if isinstance(theirs, bool) else _QUOTE
        yield Problem(dotted(location, document) or "the value", ours, meaning, remedy)


def _twice(error: DuplicateKeyError) -> str:
    """Only the key: ruamel also tells the value, which may be a secret."""
    key = re.search(r'duplicate key "([^"]*)"', str(error.problem))
    return f"the key {key.group(1)!r} stands there a second time" if key else "a key stands there a second time"


def _marked(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError | yaml.MarkedYAMLError) else None
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + _first_line(getattr(error, "problem", None) or str(error))


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]
