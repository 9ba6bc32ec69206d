"""The rules of .sops.yaml: what will be encrypted the next time somebody writes a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook.clients import sops
from fluobook.gitops import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

NAME = ".sops.yaml"
_FIELDS = ("data", "stringData")
_PARTIAL = ("encrypted_regex", "unencrypted_regex", "encrypted_suffix", "unencrypted_suffix")
_BUNDLE = "talos/secrets/any.sops.yaml"
_VALUES = "cluster-gitops/apps/secrets/any.sops.yaml"


def creation_rules_leave_nothing_clear(look: Look) -> Iterator[Finding]:
    """A bundle is encrypted as a whole; of a Kubernetes Secret every value is; files and rules agree."""
    file = look.root / NAME
    found = documents.read(file) if file.exists() else []
    for path, whole in ((_BUNDLE, True), (_VALUES, False)):
        yield from _for_path(look, found[0] if found else None, path, whole=whole)
    for one in look.encrypted:
        metadata = sops.metadata(one.file)
        if one.file.is_relative_to(look.top) and metadata and not _covers(metadata):
            key = next((key for key in _PARTIAL if metadata.get(key)), "mac")
            document = documents.read(one.file)[0]
            message = f"{key} leaves {_left_clear(metadata)} in clear"
            yield look.at(document, "sops", key).finding("sops-rule", message, f"encrypt it anew, as {NAME} says")


def _for_path(look: Look, document: Document | None, path: str, *, whole: bool) -> Iterator[Finding]:
    rules: list[dict[str, Any]] = (document.data.get("creation_rules") or []) if document else []
    index = next((at for at, rule in enumerate(rules) if re.search(str(rule.get("path_regex", "")), path)), None)
    if document is None or index is None:
        yield look.in_file(look.root / NAME, 1).finding("sops-rule", f"no rule fits {path}", "add one")
        return
    partial = [key for key in _PARTIAL if rules[index].get(key)]
    if whole and partial:
        at = look.at(document, "creation_rules", index)
        yield at.finding(
            "sops-rule", f"{partial[0]} leaves keys of {path} in clear", "let the bundles' rule stand first"
        )
    elif not whole and not _covers(rules[index]):
        at = look.at(document, "creation_rules", index, partial[0] if partial else "path_regex")
        message = (
            f"{partial[0]} leaves {_left_clear(rules[index])} in clear"
            if partial
            else (f"{path} would be encrypted as a whole, and Argo CD could not tell what it is")
        )
        yield at.finding("sops-rule", message, "encrypted_regex: ^(data|stringData)$")


def _covers(rule: dict[str, Any]) -> bool:
    return bool(rule.get("encrypted_regex")) and not _left_clear(rule)


def _left_clear(rule: dict[str, Any]) -> str:
    pattern = rule.get("encrypted_regex")
    return ", ".join(field for field in _FIELDS if not pattern or not re.search(str(pattern), field))
