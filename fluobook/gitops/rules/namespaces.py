"""Every namespace that something goes to is made by the tree, once, and before anything goes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

BORN_WITH_THE_CLUSTER = {"default", "kube-system", "kube-public", "kube-node-lease"}


def made(look: Look) -> dict[str, tuple[Application, Document]]:
    """The namespaces of the tree: which Application makes each, and from which manifest."""
    return {one.name: (application, one) for application, one in look.deployed if one.kind == "Namespace"}


def namespaces_are_made(look: Look) -> Iterator[Finding]:
    """Destinations and objects name namespaces that exist by then; none is made by an Application's own option."""
    known = made(look)
    for one in look.tree.applications:
        place = look.at(one.document, "spec", "destination", "namespace")
        if one.namespace not in BORN_WITH_THE_CLUSTER and one.namespace not in known:
            yield place.finding(
                "namespace", f"nothing makes namespace {one.namespace}", "add it to infrastructure/namespaces"
            )
        if "CreateNamespace=true" in one.sync_options:
            yield look.at(one.document, "spec", "syncPolicy", "syncOptions").finding(
                "namespace",
                f"{one.name} makes its namespace itself, without PodSecurity labels",
                "CreateNamespace=false",
            )
    for application, document in look.deployed:
        if document.namespace and document.namespace not in {*BORN_WITH_THE_CLUSTER, *known}:
            yield look.at(document, "metadata", "namespace").finding(
                "namespace",
                f"nothing makes namespace {document.namespace} of {document.kind} {document.name}",
                f"add it to infrastructure/namespaces, or correct it ({application.name} deploys it)",
            )
