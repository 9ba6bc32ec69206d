"""Every object has the shape of its kind, in a version that the cluster serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops import schemas
from fluobook.gitops.secrets import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_NOT_FOR_THE_CLUSTER = {"Kustomization", "ksops"}


def objects_have_their_shape(look: Look) -> Iterator[Finding]:
    """Built-in objects fit the pinned Kubernetes' schemas, custom resources their CRD's where it is known."""
    for document in look.documents:
        if document.kind and document.kind not in _NOT_FOR_THE_CLUSTER:
            yield from _version(look, document)
            yield from _shape(look, document)
    for _, document in look.deployed:
        for key, told in (("kind", document.kind), ("metadata", document.name)):
            if not told:
                yield look.at(document, key).finding("shape", f"the object has no {key}", "give it kind and name")


def _version(look: Look, document: Document) -> Iterator[Finding]:
    version = str(document.data.get("apiVersion", ""))
    if schemas.is_known(version, document.kind):
        return
    served = schemas.versions_of(version, document.kind)
    if not served and schemas.has_group(version):
        yield look.at(document, "kind").finding("shape", f"{version} has no kind {document.kind}", "correct the kind")
        return
    if schemas.is_built_in(version) or served:
        yield look.at(document, "apiVersion").finding(
            "shape",
            f"no cluster of ours serves {document.kind} in {version}",
            f"write it in {' or '.join(served)}" if served else "correct apiVersion and kind",
        )


def _shape(look: Look, document: Document) -> Iterator[Finding]:
    data = dict(document.data)
    if document.file.name.endswith(SUFFIX):
        data.pop("sops", None)
    for path, message in schemas.problems(data):
        where = ".".join(map(str, path)) or document.kind
        yield look.at(document, *path).finding(
            "shape", f"{where}: {message}", f"kubectl explain {document.kind.lower()}"
        )
