"""Secrets: encrypted, for the right recipients, unchanged since, and no key beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook.clients import sops
from fluobook.errors import AccessDenied, OutsideError
from fluobook.gitops.secrets import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_KEY = re.compile(r"AGE-SECRET-KEY-1|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SECRET_NAME = re.compile(r"(password|passwd|secretkey|token|credential)s?$", re.IGNORECASE)


def secrets_are_encrypted(look: Look) -> Iterator[Finding]:
    """No Secret in clear, no value in clear in a file that SOPS should have encrypted, no password among values."""
    for document in look.documents:
        if document.file.name.endswith(SUFFIX):
            yield from _clear_values(look, document)
        elif document.kind == "Secret" and (document.data.get("data") or document.data.get("stringData")):
            yield look.at(document, "kind").finding(
                "cleartext",
                f"Secret {document.name} is not encrypted",
                f"name it …{SUFFIX} and `sops encrypt -i` it",
            )
    for application in look.tree.applications:
        for path in _passwords(application.values):
            yield look.at(application.document, "spec", "source", "helm", "valuesObject", *path).finding(
                "cleartext", f"{'.'.join(path)} holds a secret in clear", "name an existing Secret instead"
            )


def keys_are_not_in_the_tree(look: Look) -> Iterator[Finding]:
    """No private key in the GitOps tree, encrypted or not."""
    for file in look.files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if _KEY.search(line):
                yield look.in_file(file, number).finding(
                    "key", "a private key stands here", "take it out, and replace the key: Git forgets nothing"
                )


def recipients_are_right(look: Look) -> Iterator[Finding]:
    """Every encrypted file is for exactly the recipients that .sops.yaml names for it."""
    for one in look.encrypted:
        relative = one.file.relative_to(look.root).as_posix()
        if one.wanted is None:
            yield look.in_file(one.file).finding(
                "recipient", "no rule of .sops.yaml fits it", "add a rule for its folder"
            )
        elif one.recipients and one.recipients != one.wanted:
            actual, wanted = (", ".join(sorted(recipients)) for recipients in (one.recipients, one.wanted))
            yield look.in_file(one.file, _line(one.file, "recipient:")).finding(
                "recipient",
                f"it is encrypted for {actual}, and .sops.yaml says {wanted}",
                f"sops updatekeys {relative} && sops rotate -i {relative}",
            )


def macs_are_intact(look: Look) -> Iterator[Finding]:
    """Every file that the lab's key opens is as SOPS wrote it; other keys are not at hand in a check."""
    identities = [file.read_text() for file in sorted((look.root / "params" / "lab").glob("*.age"))]
    for file in (one.file for one in look.encrypted):
        for identity in identities:
            try:
                sops.decrypt(file, identity)
            except AccessDenied:
                continue
            except OutsideError as error:
                if sops.is_encrypted(file):
                    yield look.in_file(file, _line(file, "mac:")).finding("mac", error.message, error.remedy)
            break


def _clear_values(look: Look, document: Document) -> Iterator[Finding]:
    place = look.at(document)
    if not (document.data.get("sops") or {}).get("mac"):
        yield place.finding("cleartext", "SOPS has not encrypted it", f"sops encrypt -i {document.file.name}")
        return
    for field in ("data", "stringData"):
        for key, value in (document.data.get(field) or {}).items():
            if not str(value).startswith("ENC["):
                yield look.at(document, field, key).finding(
                    "cleartext", f"{field}.{key} is in clear", f"edit it with `sops edit {document.file.name}`"
                )


def _passwords(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, str) and value and _SECRET_NAME.search(key):
                yield (*path, key)
            yield from _passwords(value, (*path, key))


def _line(file: Path, text: str) -> int:
    lines = file.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if text in line), 0)
