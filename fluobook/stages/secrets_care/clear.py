"""Encrypted files in clear, in memory alone; whatever is read, the redactor learns first."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

import yaml
from ruamel.yaml import YAML

from fluobook.clients import sops
from fluobook.errors import AccessDenied, Refused
from fluobook.gitops.secrets import lab_recipients

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.context import RunContext

FIELDS = ("data", "stringData")


def text_of(context: RunContext, file: Path) -> str:
    """The clear text of a file: with the operator's key, or the lab's where it was for that one.

    Raises:
        AccessDenied: neither opens it.
        Rejected: it was changed without sops, or is damaged.
    """
    if not sops.is_encrypted(file):
        return _learnt(context, file.read_text())
    try:
        return _learnt(context, sops.decrypt(file, context.secrets.age_key()))
    except AccessDenied:
        if not set(sops.recipients(file)) & lab_recipients(context.root):
            raise
    keys = "\n".join(key.read_text() for key in sorted((context.root / "params" / "lab").glob("*.age")))
    return _learnt(context, sops.decrypt(file, keys))


def stamp_of(file: Path) -> str:
    """Tells one state of a file from another."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def document_of(text: str, file: Path) -> Any:
    """The one document in a text, with its comments.

    Raises:
        Refused: there are several: which of them is meant would be a guess.
    """
    documents = list(_yaml().load_all(text))
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise Refused(f"{file} does not hold one document", remedy="give each Secret a file of its own")
    return documents[0]


def written(document: Any) -> str:
    """A document as text, comments included."""
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def values(document: Any) -> dict[str, str]:
    """The values of a Secret, in clear."""
    decoded = {
        key: base64.b64decode(value).decode(errors="replace") for key, value in (document.get("data") or {}).items()
    }
    return {**decoded, **(document.get("stringData") or {})}


def plain(text: str) -> Any:
    """The document in a text as plain data, as sops reads it."""
    return yaml.safe_load(text)


def _learnt(context: RunContext, text: str) -> str:
    for document in yaml.safe_load_all(text):
        if isinstance(document, dict):
            inside = [document.get(field) for field in FIELDS] if document.get("kind") == "Secret" else [document]
            context.redactor.add(*_leaves(inside))
            context.redactor.add(*values(document).values())
    return text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value


def _yaml() -> YAML:
    form = YAML()
    form.preserve_quotes = True
    form.width = 4096
    form.indent(mapping=2, sequence=4, offset=2)
    return form
