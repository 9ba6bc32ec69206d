"""What servers answer, read into plain data: the codes of unreadable answers, the first bytes, and the types.

Pure functions, shared by all protocols. A server may answer anything: a login page with status 200, half of a
document, a list where an object belongs. Each of these is an `InvalidAnswer` whose code names the kind.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from fluobook import errors
from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, Unreachable
from fluobook.files import packaged

if TYPE_CHECKING:
    from collections.abc import Mapping

    Shape = type | tuple[Any, ...] | dict[str, Any] | list[Any] | re.Pattern[str] | None

SHOWN = 120
"""Characters of an unreadable answer that an error shows."""
DEEPEST = 200
"""Levels of brackets in a document; deeper ones overflow the stack of libyaml."""

EMPTY, HTML, MALFORMED, UNEXPECTED = "EMPTY", "HTML", "MALFORMED", "UNEXPECTED"
TOO_LARGE, TRUNCATED, REDIRECT = "TOO_LARGE", "TRUNCATED", "REDIRECT"
"""Codes of answers that cannot be used; the catalogue explains each."""

STATUS_ERRORS: dict[int, type[OutsideError]] = {
    **dict.fromkeys((401, 403, 407, 511), AccessDenied),
    404: NotFound,
    **dict.fromkeys((409, 410, 412), Conflict),
    **dict.fromkeys((408, 429, 502, 503, 504), Unreachable),
}
"""The error for an HTTP status; every other one is `Rejected` below 500, and an `OutsideError` from there on."""

_HTML = re.compile(
    rb"(?is)\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|(html|head|body|title|meta|script|style|link|div|form|center|table|iframe|h1|p)\b)"
)
_LOGIN = re.compile(rb"type=[\"']?password|sign.?in|log.?in\b|single.sign|SAML|captive|portal", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>\s*(.{1,120}?)\s*</title>", re.IGNORECASE | re.DOTALL)


def error_of(status: int) -> type[OutsideError]:
    """The error for an HTTP status."""
    return STATUS_ERRORS.get(status, Rejected if 400 <= status < 500 else OutsideError)  # noqa: PLR2004


def first_bytes(body: bytes) -> str:
    """The beginning of an answer in one line: text as it is, other bytes as Python writes them."""
    head = body[:SHOWN]
    text = head.decode("utf-8-sig", errors="ignore")
    is_text = all(char.isprintable() or char.isspace() for char in text) and len(head) < len(text.encode()) + 4
    return (" ".join(text.split()) if is_text else repr(head[:32])[2:-1]) + (" …" if len(body) > SHOWN else "")


def is_html(body: bytes) -> bool:
    """Whether an answer is a web page, whatever its content type says."""
    return bool(_HTML.match(body.removeprefix(b"\xef\xbb\xbf")[:4000]))


def page_of(body: bytes) -> str:
    """What a web page is, for messages: a login page if it looks like one, with its title."""
    title = _TITLE.search(body[:20_000])
    kind = "a login page" if _LOGIN.search(body[:200_000]) else "a web page"
    return f"{kind} ({' '.join(title[1].decode(errors='replace').split())})" if title else kind


def parse_json(body: bytes) -> Any:
    """The JSON in an answer.

    Raises:
        ValueError: it is not JSON in UTF-8, or too deep.
    """
    text = body.decode("utf-8-sig")
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be shown later
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def is_incomplete(error: Exception) -> bool:
    """Whether a document ended too early."""
    if isinstance(error, json.JSONDecodeError):
        return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
    return "end of stream" in str(error) or "stream end" in str(error)


def reason_of(error: Exception) -> str:
    """Why a document cannot be parsed, in words that do not depend on the parser's programming language."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "it has half of a surrogate pair"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno} is not JSON"
    return "a number has too many digits" if "digits" in str(error) else str(error)


def parse_yaml(body: bytes, loader: Any = yaml.CSafeLoader) -> Any:
    """The first YAML document in an answer.

    Raises:
        ValueError: it is not YAML in UTF-8, too deep, or there is none.
    """
    depth = 0
    try:
        for event in yaml.parse(body.decode("utf-8-sig"), Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # libyaml's loader would overflow the stack
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        if not body.strip():
            raise ValueError("it is empty")
        return yaml.load(body, Loader=loader)  # noqa: S506  (a safe loader)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(getattr(error, "problem", "")) or str(error)) from None


def mismatch(value: Any, shape: Shape, at: str = "the answer") -> str:
    """Where a value first differs from the expected types; "" if it does not.

    Args:
        value: parsed JSON or YAML.
        shape: a type, a tuple of types, a pattern for a number or text, a list with the shape of its items, or a dict
            with the shapes of its fields, where "name?" may be absent or null, and "*" is for every field.
        at: the value's name in the message.

    Example:
        >>> mismatch({"items": [{"name": None}]}, {"items": [{"name": str}]})
        'items[0].name is null'
    """
    if shape is None:
        return ""
    if isinstance(shape, list | dict) and not isinstance(value, type(shape)):
        return f"{at} is {_named(value)}, not {_named(shape)}"
    if isinstance(shape, list):
        return next(filter(None, (mismatch(item, shape[0], f"{at}[{n}]") for n, item in enumerate(value))), "")
    if isinstance(shape, dict):
        return next(filter(None, (_field(value, name, part, at) for name, part in shape.items())), "")
    if isinstance(shape, re.Pattern):
        fits = isinstance(value, str | int | float) and bool(shape.fullmatch(str(value)))
    else:
        fits = isinstance(value, shape) and not (isinstance(value, bool) and shape in (int, float))
    return "" if fits else f"{at} is {_named(value)}"


def _field(value: Mapping[str, Any], name: str, shape: Shape, at: str) -> str:
    prefix = "" if at == "the answer" else f"{at}."
    if name == "*":
        return next(filter(None, (mismatch(v, shape, f"{prefix}{key}") for key, v in value.items())), "")
    key = name.removesuffix("?")
    if key != name and value.get(key) is None:
        return ""
    return mismatch(value[key], shape, f"{prefix}{key}") if key in value else f"{prefix}{key} is missing"


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"{str(value)[:40]!r}" if isinstance(value, str) else str(value)[:40]


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks to wait: a number or an HTTP date; None if there is neither."""
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def public_url(url: str) -> str:
    """A URL without user information, query and fragment, which may hold credentials."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid URL"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


@cache
def _tool_texts() -> list[tuple[str, type[OutsideError], re.Pattern[str]]]:
    entries = packaged(__package__, "tool_texts.yaml").items()
    return [(code, getattr(errors, e["kind"]), re.compile("|".join(e["texts"]), re.IGNORECASE)) for code, e in entries]


def tool_failure(text: str) -> tuple[str, type[OutsideError]]:
    """The code and the error for what git or helm wrote; "" and `OutsideError` if the text is not known."""
    return next(((code, kind) for code, kind, texts in _tool_texts() if texts.search(text)), ("", OutsideError))


def without_credentials(text: str) -> str:
    """A program's text without user information and queries in its URLs."""
    return re.sub(r"(\w+://)[^\s/@\"']*@|(\w+://[^\s?\"']*)\?[^\s\"':]*", lambda url: url[1] or url[2], text)
