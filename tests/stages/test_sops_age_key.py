"""Stage 6: Argo CD gets the right key, and it is never shown."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fluobook.clients import age
from fluobook.errors import Refused
from fluobook.stages import sops_age_key
from fluobook.stages.core.cluster import Missing

NAME = "sops-age-key"


@pytest.fixture(scope="module")
def cluster(shared_labs):
    lab = shared_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes", "privileged-namespaces")
    return lab


@pytest.fixture
def lab(cluster):
    cluster.bring_up(NAME)
    cluster.mark()
    return cluster


def put(lab, text):
    body = {"data": {"keys.txt": base64.b64encode(text.encode()).decode()}}
    lab.background.call(lab.environment.kubernetes.store.patch, "v1", "Secret", NAME, "argocd", body=body)


def key_in(lab):
    secret = lab.background.call(lab.environment.kubernetes.store.get, "v1", "Secret", NAME, "argocd")
    return base64.b64decode(secret["data"]["keys.txt"]).decode()


@pytest.mark.lab
def test_argocd_gets_the_key_that_decrypts_the_tree(lab):
    context = lab.context()
    assert age.public_key(key_in(lab)) == context.secrets.recipient()


@pytest.mark.lab
def test_a_second_run_changes_nothing(lab):
    lab.bring_up(NAME)
    assert lab.stage(NAME).plan().actions == ()
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_another_key_in_the_cluster_is_named_by_its_public_half_and_replaced(lab):
    other = age.generate()
    put(lab, other.file())
    stage = lab.stage(NAME)
    plan = stage.plan()
    (action,) = plan.actions
    assert (action.verb, action.reason) == ("change", f"holds the key of {other.recipient}")
    assert other.secret not in str(plan)
    stage.apply(plan)
    assert age.public_key(key_in(lab)) == lab.context().secrets.recipient()


@pytest.mark.lab
def test_an_invalid_key_is_replaced_too(lab):
    put(lab, "hunter2")
    assert lab.stage(NAME).plan().actions[0].reason == "holds no readable age key"
    lab.bring_up(NAME)
    assert lab.stage(NAME).plan().actions == ()


@pytest.mark.lab
def test_the_written_value_is_masked_wherever_it_might_be_shown(lab):
    put(lab, "hunter2")
    context = lab.context()
    stage = lab.stage(NAME, context=context)
    stage.apply(stage.plan())
    value = base64.b64encode(key_in(lab).encode()).decode()
    assert value not in context.redactor.text(f"data: {{keys.txt: {value}}}")


@pytest.mark.lab
def test_the_labs_key_is_refused_for_a_live_platform(lab):
    context = replace(lab.context(), target="live")
    with pytest.raises(Refused, match="is the lab's"):
        lab.stage(NAME, context=context).plan()


@pytest.mark.lab
def test_a_key_that_decrypts_nothing_is_refused_before_any_request_to_the_cluster(lab, tmp_path):
    other = age.generate()
    (tmp_path / "keys.txt").write_text(other.file())
    context = lab.context(secrets={"age_key": {"file": str(tmp_path / "keys.txt")}})
    with pytest.raises(Refused, match=f"{other.recipient}.*does not match.*is encrypted for age1"):
        lab.stage(NAME, context=context).plan()
    assert lab.requests("kubernetes") == []


def test_a_file_edited_without_sops_is_detected_by_its_mac(root, tmp_path):
    for part in ("cluster-gitops", ".sops.yaml", "params"):
        source = root / part
        shutil.copytree(source, tmp_path / part) if source.is_dir() else shutil.copy(source, tmp_path / part)
    key = (root / "params/lab/lab.age").read_text()
    for file in (tmp_path / "cluster-gitops").rglob("*.sops.yaml"):
        file.write_text(file.read_text().replace("kind: Secret", "kind: ConfigMap"))
    context = SimpleNamespace(root=tmp_path, secrets=SimpleNamespace(age_key=lambda: key))
    (problem,) = sops_age_key.observe(context).problems
    assert "was changed after it was encrypted" in problem


def test_without_a_cluster_the_secret_is_predicted(platform):
    observation = sops_age_key.Observation(("age1x",), (), 2, Missing("bootstrap-kubernetes", "no API"))
    plan = sops_age_key.plan(platform, observation)
    assert (plan.waits_for, plan.digest, len(plan.actions)) == ("bootstrap-kubernetes", "", 1)


def test_the_digest_depends_on_the_public_key(platform):
    observation = sops_age_key.Observation(("age1x",), (), 2)
    other = sops_age_key.Observation(("age1y",), (), 2)
    assert sops_age_key.plan(platform, observation).digest != sops_age_key.plan(platform, other).digest
