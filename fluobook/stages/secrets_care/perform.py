"""Writes one file: decrypted, changed and encrypted again in memory, proved, and put in its place in one step."""

from __future__ import annotations

import base64
import os
import re
import secrets
from typing import TYPE_CHECKING, Any

from fluobook.clients import sops
from fluobook.errors import Conflict, Rejected
from fluobook.gitops.secrets import lab_recipients
from fluobook.stages.secrets_care import clear
from fluobook.stages.secrets_care.wishes import DATA_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSet, Sequence
    from pathlib import Path

    from fluobook.context import RunContext
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action
    from fluobook.stages.secrets_care.wishes import Wish

RANDOM_BYTES = 24
"""192 bits, as 32 letters, digits, - and _, which need no quoting anywhere."""


def perform(
    context: RunContext,
    action: Action,
    _report: Reporter,
    *,
    wishes: Sequence[Wish] = (),
    renewed: MutableSet[tuple[str, str]] | None = None,
) -> Mapping[str, Any]:
    """Do one action and note what was made anew; the evidence names keys and recipients, never values."""
    file = context.root / action.data["file"]
    if action.verb == "list":
        return _list(file, action.data["files"])
    asked = next((wish.asked for wish in wishes if wish.file == action.data["file"]), {})
    document = _new(action.data["secret"]) if action.verb == "create" else _present(context, file, action.data["stamp"])
    for key in action.data.get("remove") or ():
        _remove(document, key)
    for key in action.data["set"]:
        _put(document, key, asked.get(key) or _made_up(context))
    _replace(context, file, _unmarked(context, clear.written(document), action), action)
    if renewed is not None:
        renewed |= {(action.data["file"], key) for key in (DATA_KEY, *action.data["set"])}
    return {"recipients": action.data["recipients"], "set": action.data["set"]}


def _new(secret: Mapping[str, str]) -> dict[str, Any]:
    named = {"name": secret["name"], "namespace": secret["namespace"]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": named, "type": secret["type"], "stringData": {}}


def _present(context: RunContext, file: Path, stamp: str) -> Any:
    if clear.stamp_of(file) != stamp:
        raise Conflict(
            f"{file} was changed in the meantime", system="file", remedy="run the plan cell again and look at it"
        )
    return clear.document_of(clear.text_of(context, file), file)


def _remove(document: Any, key: str) -> None:
    for field in clear.FIELDS:
        (document.get(field) or {}).pop(key, None)


def _put(document: Any, key: str, value: str) -> None:
    if key in (document.get("data") or {}):
        document["data"][key] = base64.b64encode(value.encode()).decode()
    else:
        document.setdefault("stringData", {})[key] = value


def _made_up(context: RunContext) -> str:
    value = secrets.token_urlsafe(RANDOM_BYTES)
    context.redactor.add(value)
    return value


def _unmarked(context: RunContext, text: str, action: Action) -> str:
    """The text without the mark of a lab secret, once it is none any more."""
    mine = lab_recipients(context.root).isdisjoint(action.data["recipients"])
    return re.sub(r"^# LAB SECRET.*\n", "", text) if mine else text


def _replace(context: RunContext, file: Path, text: str, action: Action) -> None:
    """Encrypt, read back what was encrypted, and only then let it take the file's place.

    Raises:
        Rejected: what was encrypted is not what it should be; the file stays as it was.
    """
    encrypted = sops.encrypt(text, path=file, config=context.root / ".sops.yaml")
    back = sops.read(encrypted, context.secrets.age_key(), name=action.data["file"])
    meant = clear.plain(text)
    if back != meant or sorted(sops.recipients(encrypted)) != list(action.data["recipients"]):
        raise Rejected(
            f"{action.data['file']} would not be what it should be; it stays as it is",
            system="sops",
            remedy="look at .sops.yaml: a rule that stands further up may fit the file too",
        )
    _write(file, encrypted)


def _list(file: Path, files: Sequence[str]) -> Mapping[str, Any]:
    """Write a generator's list; the rest of the file, comments too, stays as it is."""
    document = clear.document_of(file.read_text(), file)
    if document.get("files"):
        document["files"][:] = list(files)
    else:
        document["files"] = list(files)
    _write(file, clear.written(document))
    return {"files": list(files)}


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f".{os.getpid()}.{file.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
