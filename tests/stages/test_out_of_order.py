"""A stage whose turn has not come says whose it is, and changes nothing."""

from __future__ import annotations

import pytest

from fluobook.errors import StageMissing

pytestmark = pytest.mark.lab
LATER = ("privileged-namespaces", "sops-age-key", "install-argocd", "root-application")


def refused(lab, name):
    """The stage that a stage waits for, after it was tried all the same."""
    stage = lab.stage(name)
    plan = stage.plan()
    assert plan.actions, "a prediction has actions"
    assert plan.digest == ""
    lab.mark()
    with pytest.raises(StageMissing, match=plan.waits_for):
        stage.apply(plan)
    assert lab.requests(mutating=True) == []
    return plan.waits_for


def test_without_a_cluster_all_wait_for_kubernetes(labs):
    lab = labs()
    assert {refused(lab, name) for name in LATER} == {"bootstrap-kubernetes"}


def test_in_a_bare_cluster_each_waits_for_the_one_that_it_stands_on(labs):
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    assert refused(lab, "sops-age-key") == "privileged-namespaces"
    assert refused(lab, "install-argocd") == "privileged-namespaces"
    assert refused(lab, "root-application") == "install-argocd"
    lab.bring_up("privileged-namespaces")
    assert refused(lab, "install-argocd") == "sops-age-key"
