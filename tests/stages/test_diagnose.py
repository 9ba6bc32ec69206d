"""Diagnose: known failures by evidence from stages, cluster and the last run; nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fluobook.errors import CheckFailed, FluobookError, TaskFailed
from fluobook.failures import Presentation, present
from fluobook.notebook import stage_run
from fluobook.stages import diagnose
from fluobook.stages.catalogue import STAGES
from fluobook.stages.core.check import Check, Checks
from fluobook.stages.diagnose import Examined, table


def finding(message: str) -> Presentation:
    return present(FluobookError(message), phase="phase1")


def texts(shown: Any) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in shown.rows]


def test_findings_with_the_same_failure_are_shown_once_with_causes_in_order_and_the_next_command() -> None:
    nodes = [finding(f"node {name}: cni plugin not initialized") for name in "abcde"]
    rows = texts(table([Examined("observe", nodes[:1]), Examined("nodes", nodes)]))
    assert rows[0] == ["✗ F32", "The node is NotReady because it has no CNI"]
    assert rows[1] == ["found by", "observe, nodes"]
    evidence, cause, remedy, command = (
        next(text for label, text in rows if label == wanted)
        for wanted in ("evidence", "likely cause", "remedy", "next command")
    )
    assert evidence.startswith("node a: ")
    assert evidence.endswith("+2 more")
    assert cause.startswith("The node waits for Cilium")
    assert "inline manifest" in remedy
    assert command.startswith("fluobook kubectl phase1 --")


def test_a_known_failure_of_stages_with_remedies_of_their_own_is_shown_once() -> None:
    own = replace(finding("a: cni plugin not initialized\n  b"), remedy="run the stage again", next="")
    rows = texts(table([Examined("a", [own]), Examined("b", [finding("b: cni plugin not initialized")])]))
    assert [label for label, _ in rows if label.startswith("✗")] == ["✗ F32"]
    assert next(text for label, text in rows if label == "remedy") == "run the stage again"
    assert all("\n" not in text for _, text in rows)


def test_a_subject_names_each_failure_once_with_the_first_line_of_its_evidence() -> None:
    seen = [finding(f"node {name}: cni plugin not initialized\n  more") for name in "ab"]
    assert diagnose._result([*seen, finding("a riddle")]) == (
        "F32 The node is NotReady because it has no CNI: node a: cni plugin not initialized; "
        "node b: cni plugin not initialized; a riddle"
    )


def test_what_the_catalogue_does_not_know_is_shown_as_such() -> None:
    assert texts(table([Examined("nodes", [finding("a riddle")])]))[0] == ["✗ finding", "not in the catalogue"]


def test_a_healthy_platform_has_no_findings_and_remarks_are_kept() -> None:
    shown = table([Examined("preflight"), Examined("observe", remarks=["no receiver"])])
    assert (shown.title, shown.rows, shown.note) == ("nothing was found", [], "no receiver")


def test_subjects_that_an_earlier_stage_blocks_are_named_in_one_line() -> None:
    parts = [Examined(name, blocked="create-vms has not run") for name in ("nodes", "Talos")]
    assert table(parts).note == "not examined: nodes, Talos (blocked: create-vms has not run)"


def test_a_failure_is_read_again_from_the_text_that_was_shown() -> None:
    error = TaskFailed("no VM", system="proxmox", detail="can't lock file '/var/lock/qemu-server/lock-101.conf'")
    shown = present(error, phase="phase1")
    read = Presentation.read(f"TaskFailed: {shown.text()}")
    assert (read.message, read.failure, read.causes) == ("no VM", shown.failure, shown.causes)
    assert (read.remedy, read.next) == (shown.remedy, "qm unlock 101")
    advice = Presentation.read(f"CheckFailed: a check failed\n  remedy:  {shown.advice}")
    assert (advice.remedy, advice.next) == (shown.remedy.rstrip("."), "qm unlock 101")


def test_a_failed_check_names_its_failure_once() -> None:
    error = TaskFailed("the task failed", system="proxmox", detail="no quorum")
    checks = [
        Check.failed("hosts", error),
        Check("room", passed=False, result="F64 The storage is full: no free space"),
    ]
    with pytest.raises(CheckFailed) as caught:
        Checks("preflight", checks).require()
    assert "✗ hosts: the task failed (F69 The Proxmox VE cluster has no quorum)" in caught.value.message
    assert caught.value.message.count("F64") == 1


@pytest.mark.lab
def test_a_stage_that_is_not_done_shows_why_its_last_run_failed_and_nothing_is_changed(labs: Any, capsys: Any) -> None:
    lab = labs("proxmox.storage-full")
    stage = lab.stage("create-vms")
    with pytest.raises(TaskFailed) as caught:
        stage.apply(stage.plan())
    lab.mark()
    failed = {"create-vms": f"TaskFailed: {present(caught.value, phase='phase1').text()}"}
    context = lab.context()
    with pytest.raises(CheckFailed, match=r"create-vms: F64 The storage is full: Plan \w{6}: .* Its last run failed"):
        stage_run(diagnose.stage(STAGES, failed), context, stage.gate).verify()
    shown = capsys.readouterr().out
    assert "preflight, create-vms" in shown
    assert "pvesm status" in shown
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_an_endpoint_that_is_gone_is_probed(labs: Any, capsys: Any) -> None:
    lab = labs()
    lab.background.run(lab.environment.proxmox["laptop"].stop())
    with pytest.raises(CheckFailed, match="F73 Proxmox VE is not reachable"):
        lab.stage("diagnose").verify()
    assert "nothing listens on port" in capsys.readouterr().out
