"""Names that point at something: issuers and ingress classes that an Ingress, a Gateway or a Certificate asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look

_ISSUER = "cert-manager.io/cluster-issuer"


def names_point_at_something(look: Look) -> Iterator[Finding]:
    """Each ClusterIssuer and each IngressClass that is asked for exists."""
    issuers = {one.name for _, one in look.deployed if one.kind == "ClusterIssuer"}
    classes = {name for one in look.tree.applications if (name := _class(one.values))}
    for _, document in look.deployed:
        for issuer, path in _issuers(document):
            if issuer not in issuers:
                yield look.at(document, *path).finding(
                    "reference",
                    f"there is no ClusterIssuer {issuer}",
                    f"name one of {', '.join(sorted(issuers)) or 'none'}",
                )
        asked = (document.data.get("spec") or {}).get("ingressClassName") if document.kind == "Ingress" else None
        if asked and asked not in classes:
            yield look.at(document, "spec", "ingressClassName").finding(
                "reference", f"there is no IngressClass {asked}", f"name one of {', '.join(sorted(classes)) or 'none'}"
            )


def _issuers(document: Document) -> Iterator[tuple[str, tuple[Key, ...]]]:
    if _ISSUER in document.annotations:
        yield document.annotations[_ISSUER], ("metadata", "annotations", _ISSUER)
    reference = (document.data.get("spec") or {}).get("issuerRef") if document.kind == "Certificate" else None
    if isinstance(reference, dict) and reference.get("kind") == "ClusterIssuer":
        yield str(reference.get("name")), ("spec", "issuerRef", "name")


def _class(values: dict[str, Any]) -> str:
    controller = values.get("controller")
    resource = controller.get("ingressClassResource") if isinstance(controller, dict) else None
    return str(resource.get("name", "")) if isinstance(resource, dict) else ""
