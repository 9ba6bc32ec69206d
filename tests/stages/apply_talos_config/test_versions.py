"""Versions and contracts to which running nodes cannot be changed are refused before anything is changed."""

from __future__ import annotations

import itertools

import pytest

from fluobook.errors import Refused
from fluobook.stages.apply_talos_config.plan import step_problem

STEPS = {
    ("v1.13.9", "1.13.9"): "",
    ("v1.13.9", "1.13.10"): "",
    ("v1.13.9", "1.14.1"): "",
    ("v1.13.9", "v1.14.0-rc.1"): "",
    ("", "1.14.1"): "",
    ("unknown", "1.14.1"): "",
    ("v1.14.1", "1.14.0"): "runs talos v1.14.1; versions.talos is 1.14.0, which is older",
    ("v1.14.0", "1.13.10"): "runs talos v1.14.0; versions.talos is 1.13.10, which is older",
    ("v1.12.11", "1.14.1"): "runs talos v1.12.11; versions.talos is 1.14.1, which leaves a minor version out",
    ("v1.13.9", "2.0.0"): "runs talos v1.13.9; versions.talos is 2.0.0, which leaves a minor version out",
}


@pytest.mark.parametrize(("step", "problem"), STEPS.items())
def test_versions_go_up_minor_by_minor(step: tuple[str, str], problem: str) -> None:
    assert step_problem("talos", *step) == problem


BORN = {"contract": "1.13", "talos": "1.13.9", "kubernetes": "1.35.4"}
CHANGES = {
    "talos-worker-2: runs kubernetes 1.35.4; versions.kubernetes is 1.35.3, which is older": {"kubernetes": "1.35.3"},
    "talos-worker-2: runs kubernetes 1.35.4; versions.kubernetes is 1.34.9, which is older": {"kubernetes": "1.34.9"},
    "talos-worker-2: configured for Kubernetes 1.35.4; versions.kubernetes is 1.35.5": {"kubernetes": "1.35.5"},
    "talos-worker-2: configured for Kubernetes 1.35.4; versions.kubernetes is 1.36.0": {"kubernetes": "1.36.0"},
    "runs talos v1.13.9; versions.talos is 1.13.7, which is older": {"talos": "1.13.7"},
    "runs Talos v1.13.9, which cannot read a configuration of contract 1.14": {"contract": "1.14", "talos": "1.14.0"},
}


@pytest.mark.lab
def test_a_running_cluster_is_not_changed_to_an_older_version_or_another_contract(labs):
    lab = labs(versions=BORN)
    for name in ("create-vms", "apply-talos-config"):
        stage = lab.stage(name, context=lab.context(versions=BORN))
        stage.apply(stage.plan())
    lab.mark()
    for message, versions in CHANGES.items():
        with pytest.raises(Refused) as caught:
            lab.stage("apply-talos-config", context=lab.context(versions=BORN | versions)).plan()
        assert message in str(caught.value)
        assert "in the params" in caught.value.remedy
        assert ("upgrade-kubernetes" in caught.value.remedy) is ("configured for" in message)
    assert [request for request in lab.requests("talos") if request["mutating"]] == []


@pytest.mark.lab
@pytest.mark.parametrize("contract", ["1.13", "1.14"])
def test_talos_1_14_runs_configurations_of_both_contracts(labs, contract):
    versions = {"contract": contract, "talos": "1.14.1"}
    lab = labs(versions=versions)
    for again in (False, True):
        for name in ("create-vms", "apply-talos-config", "bootstrap-kubernetes"):
            stage = lab.stage(name, context=lab.context(versions=versions))
            plan = stage.plan()
            assert bool(plan.actions) is not again
            stage.apply(plan)
            stage.verify()
    kinds = {document["kind"] for node in lab.environment.machines.nodes.values() for document in node.config.documents}
    assert ("KubeClusterConfig" in kinds) is (contract == "1.14")
    other, born = {"1.13": ("1.14", "an older"), "1.14": ("1.13", "a newer")}[contract]
    for kubernetes, problem in (("1.35.1", "which is older"), ("1.36.0", "configured for Kubernetes")):
        with pytest.raises(Refused, match=problem):
            lab.stage("apply-talos-config", context=lab.context(versions=versions | {"kubernetes": kubernetes})).plan()
    with pytest.raises(Refused, match=f"the configuration is of {born} contract than versions.contract, {other}"):
        lab.stage("apply-talos-config", context=lab.context(versions=versions | {"contract": other})).plan()


@pytest.mark.lab
def test_a_cluster_moves_to_a_newer_contract_by_a_plan_of_its_own(labs):
    born = {"contract": "1.13", "talos": "1.14.1"}
    lab = labs(versions=born)
    for name in ("create-vms", "apply-talos-config", "bootstrap-kubernetes"):
        stage = lab.stage(name, context=lab.context(versions=born))
        stage.apply(stage.plan())
    moved = {"contract": "1.14", "talos": "1.14.1", "migrates_from": "1.13"}
    stage = lab.stage("apply-talos-config", context=lab.context(versions=moved))
    plan = stage.plan()
    assert [action.verb for action in plan.actions] == ["change"] * 3
    assert all(later.needs == (earlier.id,) for earlier, later in itertools.pairwise(plan.actions))
    stage.apply(plan)
    assert [check.result for check in stage.verify().checks if not check.passed] == []
    for contract in (moved, moved | {"migrates_from": None}):
        assert lab.stage("apply-talos-config", context=lab.context(versions=contract)).plan().actions == ()
    with pytest.raises(Refused, match="the configuration is of a newer contract"):
        lab.stage("apply-talos-config", context=lab.context(versions=born)).plan()
