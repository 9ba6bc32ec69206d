"""Label and field selectors as query parameters have them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.errors import bad_request
from fluobook_lab.kube.objects import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj

    Labels = dict[str, str]
    Test = Callable[[Labels], bool]

_COMMA = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(?P<key>[^\s!=()]+)\s+(?P<how>in|notin)\s*\((?P<values>[^)]*)\)")
_EQUALS = re.compile(r"(?P<key>[^\s!=()]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s=!()]*)")
_EXISTS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s!=(),]+)")


def label_selector(text: str) -> Callable[[Obj], bool]:
    """The test that a `labelSelector` parameter asks for.

    Raises:
        ApiError: 400, it cannot be parsed.
    """
    tests = [_label_test(part.strip()) for part in _COMMA.split(text) if part.strip()]
    return lambda obj: all(test(labels_of(obj)) for test in tests)


def _label_test(part: str) -> Test:
    if found := _SET.fullmatch(part):
        values, wanted = {value.strip() for value in found["values"].split(",")}, found["how"] == "in"
        return lambda labels, key=found["key"]: (labels.get(key) in values) == wanted  # type: ignore[misc]
    if found := _EQUALS.fullmatch(part):
        key, value, wanted = found["key"], found["value"], found["how"] != "!="
        return lambda labels: (labels.get(key) == value) == wanted
    if found := _EXISTS.fullmatch(part):
        key, wanted = found["key"], not found["no"]
        return lambda labels: (key in labels) == wanted
    operator = " ".join(part.split()[1:2])
    raise bad_request(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def field_selector(text: str, known: Callable[[str], str] = lambda _path: "") -> Callable[[Obj], bool]:
    """The test that a `fieldSelector` parameter asks for; `known` says what is wrong with a path, "" if nothing.

    Raises:
        ApiError: 400, it cannot be parsed.
    """
    tests: list[tuple[str, str, bool]] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", part.strip())
        if not found:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if problem := known(found[1]):
            raise bad_request(problem)
        tests.append((found[1], found[3], found[2] != "!="))
    return lambda obj: all((_field(obj, path) == value) == wanted for path, value, wanted in tests)


def _field(obj: Any, path: str) -> str:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return str(obj).lower()
    return "" if obj is None else str(obj)
