"""Secrets: encrypted, for the right recipients, unchanged since, and no key beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook.clients import sops
from fluobook.errors import AccessDenied, OutsideError
from fluobook.gitops import documents
from fluobook.gitops.secrets import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look, Place

_KEY = re.compile(
    r"AGE-SECRET-KEY-1[0-9A-Z]|-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(ghp|glpat|xox[abp])[-_][0-9A-Za-z]{16}"
)
_SECRET_NAME = re.compile(r"(password|passwd|pass|secret_?(access_?)?key|api_?key|token|credential)s?$", re.IGNORECASE)
_SECRET_LINE = re.compile(
    r"^\s*[\w.-]*(password|passwd|pass|secret|token)\s*[=:]\s*[^\s{$]\S{3,}", re.IGNORECASE | re.MULTILINE
)
_SECRET_URL = re.compile(r"://[^/\s:@]+:[^/\s:@]+@")
_OTHER_HOLDERS = ("pgp", "kms", "gcp_kms", "azure_kv", "hc_vault", "key_groups")
_WITH_KEYS = ("cluster-gitops", "talos", "params", "notebooks")


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
        else:
            for path in _passwords(document.data):
                yield look.at(document, *path).finding(
                    "cleartext",
                    f"{document.kind} {document.name}: {'.'.join(map(str, path))} holds a secret in clear",
                    "name an existing Secret instead",
                )
    for one in look.encrypted:
        if not one.file.is_relative_to(look.top) and not sops.is_encrypted(one.file):
            yield look.in_file(one.file, 1).finding(
                "cleartext", "SOPS has not encrypted it", f"sops encrypt -i {one.file.name}"
            )


def keys_are_not_in_the_tree(look: Look) -> Iterator[Finding]:
    """No private key or token in what is committed beside the code; the lab's own key is public and named so."""
    files = (file for name in _WITH_KEYS for file in sorted((look.root / name).rglob("*")))
    for file in (file for file in files if file.is_file() and not file.is_relative_to(look.root / "params" / "lab")):
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if _KEY.search(line):
                yield look.in_file(file, number).finding(
                    "key", "a private key stands here", "take it out, and replace the key: Git forgets nothing"
                )


def recipients_are_right(look: Look) -> Iterator[Finding]:
    """Every encrypted file is for exactly the recipients that .sops.yaml names for it."""
    for one in look.encrypted:
        if one.wanted is None:
            yield look.in_file(one.file, 1).finding(
                "recipient", "no rule of .sops.yaml fits it", "add a rule for its folder"
            )
        elif one.recipients and one.recipients != one.wanted:
            actual, wanted = (", ".join(sorted(recipients)) for recipients in (one.recipients, one.wanted))
            yield _at(look, one.file, "sops", "age", 0, "recipient").finding(
                "recipient",
                f"it is encrypted for {actual}, and .sops.yaml says {wanted}",
                "10_secrets.ipynb re-keys it, with a new data key",
            )
        if others := [name for name in _OTHER_HOLDERS if sops.metadata(one.file).get(name)]:
            yield _at(look, one.file, "sops", others[0]).finding(
                "recipient", f"{others[0]} can open it too, and only age recipients are meant to", "encrypt it anew"
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
                    yield _at(look, file, "sops", "mac").finding("mac", error.message, error.remedy)
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


def _passwords(values: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    """The paths of texts that a name, before or beside them or in one of their lines, tells to be secrets."""
    if isinstance(values, dict):
        for key, value in values.items():
            if _is_secret(str(key), value):
                yield (*path, key)
            yield from _passwords(value, (*path, key))
        if _is_secret(str(values.get("name", "")), values.get("value")):
            yield (*path, "value")
    elif isinstance(values, list):
        for index, item in enumerate(values):
            yield from _passwords(item, (*path, index))


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return any((_SECRET_NAME.search(name), _SECRET_LINE.search(value), _SECRET_URL.search(value)))


def _at(look: Look, file: Path, *path: Key) -> Place:
    """The place of a value in an encrypted file."""
    return next((look.at(document, *path) for document in documents.read(file)), look.in_file(file, 1))
