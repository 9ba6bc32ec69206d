"""One sentence for each mistake in the parameters: path, value, the broken rule, and what was meant.

pydantic reports path and value; rule and meaning come from here. No value that may be a secret is repeated: a params
file with a plaintext token is refused without printing the token.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

NO_VALUE = object()
"""Stands for a value that is not written."""

_SECRET = re.compile(
    r"AGE-SECRET-KEY-|PRIVATE KEY|://[^/\s]*(@|%40)|^[^/\s]*:[^/\s]*@(?!sha256:)|=[^=]{8,}"
    r"|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|hooks\.\w+\.com|\b(xox[a-z]|gh[a-z]|github_pat|glpat)[-_]\w"
    r"|^(?-i:(?=.*\d)(?=.*[a-z])(?=.*[A-Z]))[\w+=-]{20,}$|^[0-9a-f]{32,}$|^[\w+/]{43}=$",
    re.IGNORECASE | re.ASCII,
)
"""Keys, URLs with credentials, UUIDs (the tokens of Proxmox VE), webhooks, tokens by their prefixes, random texts."""
_SECRET_KEYS = re.compile(r"token(?!_id)|secret(?!s\.)|age_key|passw|private", re.IGNORECASE)
_NAMES = ("name", "host")


@dataclass(frozen=True)
class Problem:
    """A mistake: dotted path, value, the rule that it breaks, and what was meant instead."""

    path: str
    value: Any
    rule: str
    meant: str = ""

    def __str__(self) -> str:
        """The problem on one line."""
        value = "" if self.value is NO_VALUE else f" = {shown(self.value)}"
        return f"{self.path or 'the document'}{value}: {self.rule}" + (f"; {self.meant}" if self.meant else "")


Owned = tuple[str, Any]
"""A dotted path, and the value there."""


def clashes(owned: Iterable[Owned], meant: str) -> Iterator[Problem]:
    """A problem for each value that has a second owner, with both owners."""
    owners: dict[Any, str] = {}
    for path, value in owned:
        if owners.get(value, path) != path:  # two nodes of one name are a problem of their own
            yield Problem(path, value, f"is used by {owners[value]} already", meant)
        owners.setdefault(value, path)


def refuse(rule: str, meant: str = "", *, hidden: bool = False) -> PydanticCustomError:
    """The error with which a field refuses a value; `hidden` keeps the value out of every message."""
    return PydanticCustomError("params", "{rule}", {"rule": rule, "meant": meant, "hidden": hidden})


def is_secret(text: str) -> bool:
    """Whether a text has the form of a credential."""
    return bool(_SECRET.search(text))


def shown(value: Any) -> str:
    """A value for a message: short, and never a secret."""
    if isinstance(value, Mapping):
        return "{…}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[…]"
    if isinstance(value, str) and is_secret(value):
        return "(hidden)"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}…{text[-1]}"  # noqa: PLR2004 (a line of a terminal)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known word, or else all of them, up to a line."""
    candidates = sorted(known)
    similar = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    listed = shorten(", ".join(candidates), 200, placeholder=" …")
    return f"did you mean {similar[0]!r}?" if similar else f"known here: {listed or 'nothing'}"


def name_of(item: Any) -> str:
    """The name of an item of a list, "" if it has none."""
    names = (item[key] for key in _NAMES if key in item) if isinstance(item, Mapping) else ()
    name = next(iter(names), "")
    return name if isinstance(name, str) else ""


def dotted(location: Sequence[int | str], document: Any) -> str:
    """A pydantic location as a dotted path; items of a list go by their name, as in `--set`."""
    path, value = "", document
    for step in location:
        if step == "[key]":
            continue
        inner = _step_into(value, step)
        if isinstance(step, int):
            path += f".{name_of(inner)}" if name_of(inner) else f"[{step}]"
        else:
            key = "(hidden)" if is_secret(step) else step if step.isprintable() else repr(step)
            path += f".{key}" if path else key
        value = inner
    return path


def problems_of(error: ValidationError, model: type[BaseModel], document: Any) -> tuple[Problem, ...]:
    """Every problem that pydantic found in `document`, as sentences of fluobook."""
    details = [detail for detail in error.errors(include_url=False) if not _is_a_consequence(detail)]
    return tuple(_problem(detail, model, document) for detail in details)


def _is_a_consequence(detail: ErrorDetails) -> bool:
    """Pydantic reports a list as too short when it refused the items, whose own problems are enough."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _step_into(value: Any, step: int | str) -> Any:
    try:
        return value[step]
    except (KeyError, IndexError, TypeError):
        return None


def _problem(detail: ErrorDetails, model: type[BaseModel], document: Any) -> Problem:
    path = dotted(detail["loc"], document)
    context, value = detail.get("ctx", {}), detail["input"]
    if detail["type"] == "missing":
        return Problem(path, NO_VALUE, "is required" + _in_brackets(model, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        *parents, key = detail["loc"]
        return Problem(path, NO_VALUE, "is not a known key", _about_key(str(key), parents, model))
    if detail["type"] == "invalid_key":
        return Problem(
            dotted(detail["loc"][:-1], document), NO_VALUE, f"has the key {shown(value)}", "a key must be text"
        )
    if context.get("hidden") or _SECRET_KEYS.search(path):
        value = NO_VALUE
    if detail["type"] == "params":
        about = "" if context["meant"] else _in_brackets(model, detail["loc"])
        return Problem(path, value, context["rule"] + about, context["meant"])
    return Problem(path, value, *_worded(detail, _in_brackets(model, detail["loc"])))


def _worded(detail: ErrorDetails, description: str) -> tuple[str, str]:
    context, value = detail.get("ctx", {}), detail["input"]
    is_text = detail["type"] == "string_type" or repr(str(value)) in str(context.get("expected"))
    if is_text and not isinstance(value, Mapping | list | str | None):
        kind = type(value).__name__
        return "must be text, but YAML reads it as " + kind, f'put it in quotes as it was meant, such as "{value}"'
    quotes = ", without quotes" if isinstance(value, str) else ""
    rules = {
        "greater_than": f"must be more than {context.get('gt', 0):g}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le', 0):.0f}",
        "literal_error": f"must be {context.get('expected')}",
        "int_type": "must be a whole number" + quotes,
        "float_type": "must be a number" + quotes,
        "bool_type": "must be true or false" + quotes,
        "string_type": "must be text",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
        "too_short": f"needs at least {context.get('min_length')}",
        "too_long": f"takes at most {context.get('max_length')}",
        "finite_number": "must be a finite number",
    }
    return rules.get(detail["type"], detail["msg"]) + description, ""


_UNSUPPORTED = {
    r"(extra_)?(disk|volume)s|.*_disks|(extra|second)_(disk|volume).*": "a worker has a system disk and"
    " one for Longhorn; add others in Proxmox VE and give them to Talos by a patch (UserVolumeConfig)",
    r"(net|nic|network|interface|bridge)s|net1|second_.*|networks?": "a node has one network card, on network.bridge;"
    " add others in Proxmox VE and configure them by a patch (LinkConfig)",
    r".*(ipv6|dual[-_]?stack|cidr6|cidrs).*|.*[a-z]_?v?6": "IPv6 and dual stack are not supported:"
    " nodes, pods and Services have IPv4",
    r"receivers\..*(url|uri|hook|key|passw|token|secret|credential).*": "the credential of a receiver is in a Secret,"
    " under the receiver's name (docs/how-to/alerts.md)",
    r"patch(es)?|machine_config": "patches are files: talos/patches, and those of a site's own folder",
    r"(startup|boot|up)_delay|startup": "nodes[].start_order is the order; delays are set in Proxmox VE",
}
"""What sites ask for and fluobook does not do, by the keys that they try, with the reason."""


def _about_key(key: str, parents: Sequence[int | str], model: type[BaseModel]) -> str:
    parent = _model_at(parents, model)
    path = ".".join(step for step in (*parents, key) if isinstance(step, str))
    reason = next((reason for pattern, reason in _UNSUPPORTED.items() if re.search(rf"\.({pattern})$", path)), "")
    if parents and reason:
        return reason
    elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == key]
    if elsewhere:
        return f"it belongs to {' or '.join(path.rpartition('.')[0] for path in elsewhere)}"
    return did_you_mean(key, parent.model_fields if parent else ())


def _in_brackets(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """What a key means, as an addition to a rule."""
    names = [step for step in location if isinstance(step, str) and step != "[key]"]
    parent = _model_at(names[:-1], model) if names else None
    field = parent.model_fields.get(names[-1]) if parent else None
    return f" ({' '.join(field.description.split()).rstrip('.')})" if field and field.description else ""


def _model_at(location: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for step in location:
        if current is None or isinstance(step, int):
            continue
        field = current.model_fields.get(step)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in get_args(annotation) if argument not in {NoneType, Ellipsis})
    return next((model for model in inner if model), None)


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = _model_in(field.annotation)
        if inner:
            yield from _paths(inner, f"{prefix}{name}.")
