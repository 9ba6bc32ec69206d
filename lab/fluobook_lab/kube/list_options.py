"""What lists and watches may ask for: versions, how they are to match, and which combinations make no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.options import invalid, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook_lab.kube.validation import Problem

    Query = Mapping[str, str]

_MATCH = "resourceVersionMatch"
_MATCHES = ("Exact", "NotOlderThan")
_FALSE = ("", "false", "0", "f")


def wants_watch(query: Query) -> bool:
    """Whether a request is a watch; whatever is not false is true to the real server."""
    return query.get("watch", "false").lower() not in _FALSE


def check(query: Query, *, watch: bool) -> None:
    """Refuse combinations of options that make no sense.

    Raises:
        ApiError: 400 or 422.
    """
    for name in ("limit", "timeoutSeconds"):
        if query.get(name):
            number(query[name])
    if problems := list(_watch_problems(query) if watch else _list_problems(query)):
        raise invalid("ListOptions", problems)


def _list_problems(query: Query) -> Iterator[Problem]:
    if "sendInitialEvents" in query:
        yield "sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list"
    match, version = query.get(_MATCH, ""), query.get("resourceVersion", "")
    if not match:
        return
    if not version:
        yield _MATCH, "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    if query.get("continue"):
        yield _MATCH, "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    if match not in _MATCHES:
        yield _MATCH, f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
    if match == "Exact" and version == "0":
        yield _MATCH, 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'


def _watch_problems(query: Query) -> Iterator[Problem]:
    match = query.get(_MATCH, "")
    if "sendInitialEvents" in query:
        if match != "NotOlderThan":
            yield _MATCH, "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        if match and match != "NotOlderThan":
            yield _MATCH, f'Unsupported value: "{match}": supported values: "NotOlderThan"'
    elif match:
        yield _MATCH, "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    if query.get("continue"):
        yield _MATCH, "Forbidden: resourceVersionMatch is forbidden when continue is provided"


def version_of(text: str) -> int:
    """A resourceVersion as a number, 0 if none is named.

    Raises:
        ApiError: 500, it is none; as the real server words it where it looks nothing up.
    """
    if text and not text.isdecimal():
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError(500, "", f'resourceVersion: Invalid value: "{text}": {why}')
    return int(text or "0")


def check_reached(version: int, revision: int) -> None:
    """Refuse a version that the cluster has not come to yet.

    Raises:
        ApiError: 504.
    """
    if version > revision:
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        words = f"Timeout: Too large resource version: {version}, current: {revision}"
        raise ApiError(504, "Timeout", words, {"causes": causes, "retryAfterSeconds": 1})
