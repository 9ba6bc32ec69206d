"""The root Application: the one object with which Argo CD takes over, made from the params."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.gitops.patches import own_source, patches_for

if TYPE_CHECKING:
    from fluobook.gitops.tree import Tree
    from fluobook.params import Platform

NAME = "root"
NAMESPACE = "argocd"


def root_application(platform: Platform, tree: Tree) -> dict[str, Any]:
    """The root Application of a platform, ready to be applied.

    It has no finalizer: deleting it must never take the platform away. Its project is Argo CD's own `default`, since
    the projects of the tree are what it brings.

    Raises:
        ParamsError: the tree and the platform do not fit each other; see `patches_for`.
    """
    source: dict[str, Any] = {
        "repoURL": own_source(platform),
        "targetRevision": platform.gitops.revision,
        "path": platform.gitops.path,
    }
    if patches := [patch.for_kustomize() for patch in patches_for(platform, tree)]:
        source["kustomize"] = {"patches": patches}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "project": "default",
            "source": source,
            "destination": {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "syncOptions": ["CreateNamespace=false", "ServerSideApply=true"],
                "retry": {
                    "limit": 10,
                    "refresh": True,
                    "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"},
                },
            },
        },
    }
