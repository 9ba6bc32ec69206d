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
    return lab.background.call(getattr(lab.world.kubernetes.store, verb), *args)


def test_a_second_run_finds_every_object_as_it_should_be(lab):
    assert lab.stage(NAME).plan().actions == ()
    lab.bring_up(NAME)
    assert lab.requests(mutating=True) == []


def test_no_helm_release_is_left_that_would_tell_of_the_past(lab):
    assert [
        one for one in store(lab, "list", "v1", "Secret", "argocd") if one.get("type", "").startswith("helm.sh")
    ] == []


def test_argocd_is_the_only_owner_of_what_it_will_manage(lab):
    server = store(lab, "get", "apps/v1", "Deployment", "argocd-server", "argocd")
    applied = {entry["manager"] for entry in server["metadata"]["managedFields"] if entry["operation"] == "Apply"}
    assert applied == {"argocd-controller"}


def test_the_charts_hooks_are_run_to_their_end(lab):
    job = store(lab, "get", "batch/v1", "Job", "argocd-redis-secret-init", "argocd")
    assert any(one["type"] == "Complete" for one in job["status"]["conditions"])


def test_what_somebody_took_away_is_put_back_and_nothing_else_is_touched(lab):
    store(lab, "delete", "v1", "Service", "argocd-repo-server", "argocd")
    stage = lab.stage(NAME)
    plan = stage.plan()
    assert plan.actions[0].reason.endswith("missing or differ: Service argocd-repo-server")
    stage.apply(plan)
    stage.verify()
    changed = {r["path"].partition("?")[0].rsplit("/", 1)[-1] for r in lab.requests("kubernetes", mutating=True)}
    assert "argocd-repo-server" in changed
    assert "argocd-cm" not in changed


def test_the_digest_knows_nothing_of_mirrors(lab):
    store(lab, "delete", "v1", "ConfigMap", "argocd-cm", "argocd")
    here = lab.context()
    host = next(iter(here.platform.gitops.mirrors))
    elsewhere = lab.context(gitops={"mirrors": {host: here.platform.gitops.mirrors[host] + "/"}})
    assert lab.stage(NAME, context=here).plan().digest == lab.stage(NAME, context=elsewhere).plan().digest
