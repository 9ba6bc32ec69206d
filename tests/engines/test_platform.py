"""The whole platform on the real engine: Argo CD's own programs sync the tree, wave by wave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook import gitops

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

STAGES = (
    *("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs", "privileged-namespaces"),
    *("sops-age-key", "install-argocd", "root-application"),
)


def test_argo_cd_brings_up_the_whole_tree(real_labs: Callable[[], RealLab]) -> None:
    lab = real_labs()
    lab.bring_up(*STAGES)
    applications = lab.site.kube().list("argoproj.io/v1alpha1", "Application", "argocd")
    told = {
        app["metadata"]["name"]: (app["status"]["sync"]["status"], app["status"]["health"]["status"])
        for app in applications
    }
    tree = gitops.read(lab.site.root, lab.site.platform.gitops.path)
    assert set(told) >= {application.name for application in tree.applications}
    assert set(told.values()) == {("Synced", "Healthy")}
