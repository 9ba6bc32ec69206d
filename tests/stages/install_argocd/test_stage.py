"""Stage 7: Argo CD from its own Application, without a Helm release."""

from __future__ import annotations

import pytest

NAME = "install-argocd"
BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "privileged-namespaces", "sops-age-key")
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(shared_labs):
    lab = shared_labs()
    lab.bring_up(*BEFORE)
    return lab


@pytest.fixture
def lab(cluster):
    cluster.bring_up(NAME)
    cluster.mark()
    return cluster


def store(lab, verb, *args):
    return lab.background.call(getattr(lab.environment.kubernetes.store, verb), *args)


def test_a_second_run_finds_every_object_up_to_date(lab):
    assert lab.stage(NAME).plan().actions == ()
    lab.bring_up(NAME)
    assert lab.requests(mutating=True) == []


def test_no_helm_release_is_created(lab):
    types = [secret.get("type", "") for secret in store(lab, "list", "v1", "Secret", "argocd")]
    assert types
    assert not any(secret_type.startswith("helm.sh") for secret_type in types)


def test_argocd_is_the_only_field_manager_of_the_objects_that_it_will_manage(lab):
    server = store(lab, "get", "apps/v1", "Deployment", "argocd-server", "argocd")
    applied = {entry["manager"] for entry in server["metadata"]["managedFields"] if entry["operation"] == "Apply"}
    assert applied == {"argocd-controller"}


def test_the_charts_hooks_are_run_to_their_end(lab):
    job = store(lab, "get", "batch/v1", "Job", "argocd-redis-secret-init", "argocd")
    assert any(condition["type"] == "Complete" for condition in job["status"]["conditions"])


def test_a_deleted_object_is_applied_again_and_no_other_is_changed(lab):
    store(lab, "delete", "v1", "Service", "argocd-repo-server", "argocd")
    stage = lab.stage(NAME)
    plan = stage.plan()
    assert plan.actions[0].reason.endswith("missing or differ: Service argocd-repo-server")
    stage.apply(plan)
    stage.verify()
    changed = {r["path"].partition("?")[0].rsplit("/", 1)[-1] for r in lab.requests("kubernetes", mutating=True)}
    assert "argocd-repo-server" in changed
    assert "argocd-cm" not in changed


def test_the_digest_does_not_depend_on_mirrors(lab):
    store(lab, "delete", "v1", "ConfigMap", "argocd-cm", "argocd")
    here = lab.context()
    host = next(iter(here.platform.gitops.mirrors))
    elsewhere = lab.context(gitops={"mirrors": {host: here.platform.gitops.mirrors[host] + "/"}})
    assert lab.stage(NAME, context=here).plan().digest == lab.stage(NAME, context=elsewhere).plan().digest
