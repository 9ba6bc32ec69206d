"""The encrypted files of a repository, their recipients, and the lab's own keys."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients import sops
from fluobook.errors import BadFile, Rejected
from fluobook.files import LONGEST, pattern, read_text
from fluobook.gitops import documents
from fluobook.gitops.documents import STRICT, InvalidFile, Reader
from fluobook.gitops.tree import TOPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUFFIX = ".sops.yaml"
_NOTHING = re.compile(r"(?!)")
_PUBLIC = re.compile(r"^# public key: (age1\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class EncryptedFile:
    """One file that SOPS has encrypted, or should have.

    `recipients` can decrypt it; `wanted` are those that .sops.yaml names for it, None where no rule matches.
    """

    file: Path
    recipients: frozenset[str]
    wanted: frozenset[str] | None


def encrypted_files(
    root: Path, read_by_generators: Iterable[Path] = (), reader: Reader = STRICT
) -> tuple[EncryptedFile, ...]:
    """Every *.sops.yaml of the GitOps tree, every Talos secrets bundle, and what generators read, in order."""
    by_name = (file for top in (*TOPS, "talos/secrets") for file in (root / top).rglob("*" + SUFFIX))
    files = sorted({*by_name, *read_by_generators})
    rules = creation_rules(root, reader)
    return tuple(
        EncryptedFile(file, frozenset(sops.recipients(file)), _wanted(file.relative_to(root), rules)) for file in files
    )


def values_that_are_not_base64(secret: Mapping[str, Any]) -> list[str]:
    """The keys under `data` of a decrypted Secret whose values Kubernetes cannot decode."""
    return [key for key, value in mapping(secret.get("data")).items() if decoded(value) is None]


def decoded(value: Any) -> bytes | None:
    """A value of `data`, decoded; None if it is no base64."""
    try:
        return base64.b64decode("".join(value.split()), validate=True) if isinstance(value, str) else None
    except ValueError:
        return None


def mapping(value: Any) -> dict[str, Any]:
    """The value, {} if it is no mapping."""
    return value if isinstance(value, dict) else {}


def names(root: Path) -> set[str]:
    """The names of files, of objects, their kinds and their keys in the GitOps tree: they are no secrets."""
    known = {*root.resolve().parts, "secret", "generator", "bundle"}
    for file in (file for top in TOPS for file in (root / top).rglob("*")):
        known |= {file.name, file.name.partition(".")[0]}
        with suppress(Rejected):  # `fluobook check` reports a file that cannot be read
            for document in documents.read(file) if file.suffix in (".yaml", ".yml") else ():
                known |= {document.name, document.namespace, document.kind, document.kind.lower()}
                known |= {str(key) for field in ("data", "stringData") for key in mapping(document.data.get(field))}
    return known


def lab_recipients(root: Path) -> frozenset[str]:
    """The recipients of the lab's public keys: a live run must refuse whatever is encrypted for one of them."""
    keys = (read_text(file) for file in sorted((root / "params" / "lab").glob("*.age")))
    return frozenset(recipient for text in keys for recipient in _PUBLIC.findall(text))


def wanted_for(file: Path, root: Path) -> frozenset[str] | None:
    """The recipients that .sops.yaml names for a file, existing or not; None where no rule matches."""
    return _wanted(file.relative_to(root), creation_rules(root))


CreationRules = list[tuple[re.Pattern[str], frozenset[str]]]
"""A pattern for paths, and the recipients; the first match counts."""


def _wanted(path: Path, rules: CreationRules) -> frozenset[str] | None:
    name = path.as_posix()
    if rules and len(name) > LONGEST:  # a longer one could take hours
        problem = f"has a path of more than {LONGEST} characters, which no rule of .sops.yaml is compared with"
        raise BadFile(path, problem, remedy="move it to a shorter path")
    return next((recipients for pattern, recipients in rules if pattern.search(name)), None)


def creation_rules(root: Path, reader: Reader = STRICT) -> CreationRules:
    """The rules of .sops.yaml. One with an invalid pattern, which the reader refuses, matches nothing."""
    file = root / ".sops.yaml"
    document = next(iter(reader.read(file)), None) if file.exists() else None
    rules = (document.data.get("creation_rules") or []) if document else []
    if not (isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules)):
        raise BadFile(file, "has creation_rules that are no list of mappings", remedy="correct it, see sops' README")
    compiled = []
    for index, rule in enumerate(rules):
        patterns = {"path_regex": _NOTHING}
        for key in ("path_regex", "encrypted_regex", "unencrypted_regex"):
            try:
                patterns[key] = pattern(str(rule.get(key) or ""), file)
            except BadFile as error:
                line = document.line("creation_rules", index, key) if document else 0
                reader.refuse(InvalidFile(error.problem, file=file, line=line, remedy=error.remedy))
        compiled.append((patterns["path_regex"], frozenset(sops.recipients_in(rule))))
    return compiled
