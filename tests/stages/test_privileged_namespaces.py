"""Stage 5: the namespaces that must exist before Argo CD."""

from __future__ import annotations

import pytest

from fluobook.errors import Refused
from fluobook.stages import privileged_namespaces
from fluobook.stages.core.ssa import Compared
from fluobook.stages.privileged_namespaces import Observation

ENFORCE = "pod-security.kubernetes.io/enforce"
NAME = "privileged-namespaces"


@pytest.fixture(scope="module")
def cluster(shared_labs):
    lab = shared_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    return lab


@pytest.fixture
def lab(cluster):
    cluster.bring_up(NAME)
    cluster.mark()
    return cluster


def store(lab):
    return lab.environment.kubernetes.store


def live(lab, name):
    return lab.background.call(store(lab).get, "v1", "Namespace", name)


def patch(lab, name, **labels):
    body = {"metadata": {"labels": {ENFORCE if key == "enforce" else key: value for key, value in labels.items()}}}
    lab.background.call(store(lab).patch, "v1", "Namespace", name, body=body)


@pytest.mark.lab
def test_storage_and_databases_may_run_privileged_pods_and_argocd_may_not(lab):
    levels = {name: live(lab, name)["metadata"]["labels"][ENFORCE] for name in ("longhorn-system", "scylla", "argocd")}
    assert levels == {"longhorn-system": "privileged", "scylla": "privileged", "argocd": "baseline"}


@pytest.mark.lab
def test_a_second_run_has_nothing_to_do_and_changes_nothing(lab):
    lab.bring_up(NAME)
    assert lab.stage(NAME).plan().actions == ()
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_a_changed_label_is_named_and_applied_again(lab):
    patch(lab, "monitoring", enforce="restricted")
    (action,) = lab.stage(NAME).plan().actions
    assert (action.verb, action.object) == ("change", "namespace monitoring")
    assert action.reason == f"{ENFORCE} is restricted"
    lab.bring_up(NAME)
    assert live(lab, "monitoring")["metadata"]["labels"][ENFORCE] == "privileged"


@pytest.mark.lab
def test_a_label_that_others_add_is_kept(lab):
    patch(lab, "monitoring", team="night", enforce="baseline")
    lab.bring_up(NAME)
    assert live(lab, "monitoring")["metadata"]["labels"]["team"] == "night"


@pytest.mark.lab
def test_argocd_is_the_only_owner_from_the_beginning(lab):
    managers = {entry["manager"] for entry in live(lab, "longhorn-system")["metadata"]["managedFields"]}
    assert managers == {"argocd-controller"}


def test_a_namespace_that_is_being_deleted_stops_the_stage(platform):
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "scylla"}}
    leaving = Compared(manifest, {**manifest, "status": {"phase": "Terminating"}}, differs=True)
    with pytest.raises(Refused, match="scylla is being deleted"):
        privileged_namespaces.plan(platform, Observation([manifest], None, [leaving]))
