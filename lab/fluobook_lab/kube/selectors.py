"""The label and field selectors of requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.errors import bad_request
from fluobook_lab.kube.objects import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    if match := _SET.fullmatch(part):
        values, wanted = {value.strip() for value in match["values"].split(",")}, match["how"] == "in"
        return lambda labels, key=match["key"]: (labels.get(key) in values) == wanted  # type: ignore[misc]
    if match := _EQUALS.fullmatch(part):
        key, value, wanted = match["key"], match["value"], match["how"] != "!="
        return lambda labels: (labels.get(key) == value) == wanted
    if match := _EXISTS.fullmatch(part):
        key, wanted = match["key"], not match["no"]
        return lambda labels: (key in labels) == wanted
    operator = " ".join(part.split()[1:2])
    raise bad_request(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def field_selector(text: str) -> Callable[[Obj], bool]:
    """The test that a `fieldSelector` parameter asks for.

    Raises:
        ApiError: 400, it cannot be parsed.
    """
    tests: list[tuple[str, str, bool]] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", part.strip())
        if not match:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        tests.append((match[1], match[3], match[2] != "!="))
    return lambda obj: all((_field(obj, path) == value) == wanted for path, value, wanted in tests)


def _field(obj: Any, path: str) -> str:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return str(obj).lower()
    return "" if obj is None else str(obj)


def selector(namespace: str, query: Mapping[str, str]) -> Callable[[Obj], bool]:
    """The test that namespace and selectors of a request come to.

    Raises:
        ApiError: 400, a selector cannot be parsed.
    """
    by_label = label_selector(query.get("labelSelector", ""))
    by_field = field_selector(query.get("fieldSelector", ""))

    def fits(obj: Obj) -> bool:
        inside = not namespace or obj["metadata"].get("namespace") == namespace
        return inside and by_label(obj) and by_field(obj)

    return fits
