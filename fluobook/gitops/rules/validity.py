"""What the API server refuses although the shape fits: names, labels, words of a fixed list, and ports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook.gitops.documents import steps_of
from fluobook.gitops.schemas import is_cluster_scoped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LARGEST_PORT = 65535
_WORDS = {
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
}
_OPERATORS = {"In", "NotIn", "Exists", "DoesNotExist"}
_GROUPS = {"", "apps", "batch", "networking.k8s.io", "policy"}
_PLACES = {"fluobook/phase-values", "fluobook/needed-before", "fluobook/pool"}
_FOR_ARGOCD = {"sync-wave", "sync-options", "compare-options", "hook", "hook-delete-policy", "refresh"}


def objects_are_valid(look: Look) -> Iterator[Finding]:
    """Names and labels are what Kubernetes allows, words are of their lists, selectors fit their own pods."""
    for document in look.documents:
        if not document.kind:
            continue
        for path, what, remedy in _wrong(document):
            yield look.at(document, *path).finding("valid", f"{document.kind} {document.name}: {what}", remedy)


def _wrong(document: Document) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    metadata = document.data.get("metadata") or {}
    name = metadata.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name) and document.kind not in ("Role", "ClusterRole"):
        yield ("metadata", "name"), f"{name} is no name", "lower case letters, digits, - and ."
    if document.namespace and is_cluster_scoped(document.group, document.kind):
        yield ("metadata", "namespace"), "objects of this kind have no namespace", "take it out"
    for key, value in (metadata.get("labels") or {}).items():
        if isinstance(value, str) and not _LABEL.fullmatch(value):
            yield ("metadata", "labels", key), f"{value} is no label value", "63 letters, digits, -, _ and . at most"
    for field in ("annotations", "labels"):
        for key in metadata.get(field) or {}:
            if not _is_known(str(key)):
                yield ("metadata", field, key), f"nothing reads {key}", "correct its name"
    if document.group in _GROUPS:
        yield from _words(document.data.get("spec"), ("spec",))
    yield from _own_pods(document)


def _is_known(key: str) -> bool:
    prefix, _, name = key.partition("/")
    return key in _PLACES if prefix == "fluobook" else prefix != "argocd.argoproj.io" or name in _FOR_ARGOCD


def _words(spec: Any, above: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    for path, key, value in steps_of(spec, above):
        known = _OPERATORS if key == "operator" and path[-3:-2] == ("matchExpressions",) else _WORDS.get(str(key))
        for word in (value if isinstance(value, list) else [value]) if known else ():
            if isinstance(word, str) and known and word not in known:
                yield path, f"{word} is none of {', '.join(sorted(known))}", "correct the word"
        if key in ("port", "targetPort", "containerPort", "nodePort", "endPort") and not _is_port(value):
            yield path, f"{key} {value!r} is no port", "a number from 1 to 65535, without quotes, or a port's name"


def _is_port(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isdigit()
    return not isinstance(value, int) or 0 < value <= _LARGEST_PORT


def _own_pods(document: Document) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    if document.group != "apps":
        return
    spec = document.data.get("spec") or {}
    wanted = ((spec.get("selector") or {}).get("matchLabels")) or {}
    labels = (((spec.get("template") or {}).get("metadata") or {}).get("labels")) or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        yield ("spec", "selector"), "its selector does not take its own pods", "give the template the same labels"
