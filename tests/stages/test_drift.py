"""Drift: what a stage would do and what does not run as pinned is named, and nothing is changed."""

from __future__ import annotations

import pytest

from fluobook.errors import CheckFailed, Drifted, Unreachable
from fluobook.gitops.versions import Pin
from fluobook.stages import catalogue, drift
from fluobook.stages.core.check import Check, Checks
from fluobook.stages.core.plan import Action, Plan

CHANGE = Action("a", "change", "vm talos-cp-1", "memory 8192 → 16384", "differs from the params")


@pytest.mark.parametrize(
    ("plan", "passed", "result"),
    [
        (Plan("create-vms", kept=4), True, "No changes. 4 resources are up to date."),
        (Plan("create-vms", (CHANGE,), 3), False, "change vm talos-cp-1: memory 8192 → 16384"),
        (Plan("approve-csrs", waits_for="bootstrap-kubernetes"), False, "it waits for bootstrap-kubernetes"),
    ],
    ids=["nothing to do", "a change", "blocked"],
)
def test_a_stage_that_would_do_something_has_drifted(plan, passed, result):
    check = drift.stage_check(plan)
    assert (check.passed, check.result) == (passed, result)
    assert f"--only {plan.stage}" in check.remedy


def test_a_version_that_runs_is_compared_with_its_pin():
    pins = [
        Pin("talos", "talos", "1.14.1", "", "params/versions.yaml"),
        Pin("cilium", "chart", "1.20.2", "", "cluster-gitops/cilium.yaml"),
        Pin("longhorn", "chart", "1.12.1", "", "cluster-gitops/longhorn.yaml"),
        Pin("talos", "image", "1.0.0", "", "a namesake"),
    ]
    checks = drift.pin_checks(pins, {"talos": "1.14.1", "cilium": "1.20.1, 1.20.2"})
    assert [(check.name, check.passed, check.result) for check in checks] == [
        ("talos runs 1.14.1", True, "1.14.1"),
        ("cilium runs 1.20.2", False, "1.20.1, 1.20.2 runs"),
    ]


def test_drift_has_its_own_exit_code_unless_something_could_not_be_read():
    differs = Check("a", passed=False)
    with pytest.raises(Drifted) as caught:
        Checks("drift", [differs], Drifted).require()
    assert caught.value.exit_code == 2
    with pytest.raises(CheckFailed) as caught:
        Checks("drift", [differs, Check.failed("b", Unreachable("no answer", system="talos"))], Drifted).require()
    assert caught.value.exit_code == 4


@pytest.mark.lab
def test_what_somebody_changed_by_hand_is_named_and_not_put_back(labs):
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs", "privileged-namespaces")
    vm = lab.environment.proxmox["laptop"].inventory.vms[lab.chosen.platform.nodes[1].vmid]
    vm.config["onboot"] = "0"
    lab.mark()
    checks = {check.name: check for check in drift.verify(lab.context(), catalogue.STAGES)}
    assert checks["apply-talos-config has nothing to do"].passed
    assert "onboot" in checks["create-vms has nothing to do"].result
    assert checks[f"talos runs {lab.chosen.platform.versions.talos}"].passed
    assert not checks["install-argocd has nothing to do"].passed
    assert lab.requests(mutating=True) == []
