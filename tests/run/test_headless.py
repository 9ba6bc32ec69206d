"""Headless runs of the notebooks against one lab: approval, wrong order, all stages, and a second run."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import shutil
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import papermill
import pytest
import yaml
from fluobook_lab import life
from nbclient.exceptions import DeadKernelError

from fluobook import params
from fluobook.clients import sops
from fluobook.clients.kube import Kube
from fluobook.context import POLICIES, RunContext
from fluobook.errors import BadFile
from fluobook.failures import present
from fluobook.journal.journal import Journal, StageSummary, read_record
from fluobook.machine.secrets import SecretsBundle
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.run import headless
from fluobook.run.headless import exit_code_of
from fluobook.run.signals import Interrupted, Signals
from fluobook.stages import catalogue
from fluobook.stages.catalogue import STAGES
from fluobook.stages.core.plan import Approval, Gate

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def mutating(lab):
    return [request for request in life.activity(lab)["requests"] if request["mutating"]]


@pytest.fixture(scope="module")
def lab(shared_operator):
    return shared_operator.lab_up()


@pytest.fixture(scope="module")
def root():
    return params.repository_root()


def bring_up(lab, root, *names):
    """Run stages in this process, without notebooks."""
    chosen = params.load("phase1", root=root)
    platform = params.overlay(chosen.platform, lab.overlay)
    redactor = Redactor()
    context = RunContext("phase1", platform, "lab", root, lab.cluster_folder, redactor, Journal(None, redactor))
    for name in names:
        stage = stage_run(
            catalogue.find(name), context, Gate(Approval.parse("all"), POLICIES["lab"], platform.cluster.name)
        )
        stage.apply(stage.plan())
        stage.verify()
    return context


def secrets_of(lab, root):
    """Everything that must not be found anywhere: token, age key, bundle, keys, passwords."""
    age_key = (root / lab.overlay["secrets"]["age_key"]["file"]).read_text()
    bundle = SecretsBundle.parse(sops.read(lab.cluster_folder / "secrets.sops.yaml", age_key))
    kubeconfig = yaml.safe_load((lab.cluster_folder / "kubeconfig").read_text())
    with closing(Kube.from_kubeconfig(kubeconfig)) as kube:
        password = kube.find("v1", "Secret", "argocd-initial-admin-secret", "argocd")
    values = [(lab.folder / "token").read_text(), *age_key.splitlines()[-1:], *bundle.values()]
    values += [kubeconfig["users"][0]["user"]["client-key-data"]]
    values += [base64.b64decode(password["data"]["password"]).decode()] if password else []
    return values


def test_without_approval_nothing_is_changed_and_the_exit_code_says_so(shared_operator, lab, tmp_path):
    done = shared_operator.runs("run", "phase1", "--only", "create-vms", "--out", str(tmp_path / "run"))
    assert done.returncode == 3
    assert re.search(r"ApprovalNeeded: create-vms needs approval: Plan \w{6}: 7 to create", done.stderr)
    assert "--approve create-vms=" in done.stderr
    assert mutating(lab) == []
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["exit_code"], summary["stages"][0]["status"]) == (3, "refused")


def test_a_notebook_out_of_order_names_the_missing_stage_and_changes_nothing(shared_operator, lab, tmp_path):
    words = ("--only", "bootstrap-kubernetes", "--approve", "all")
    done = shared_operator.runs("run", "phase1", *words, "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "StageMissing: bootstrap-kubernetes is blocked: run apply-talos-config first" in done.stderr
    assert mutating(lab) == []


def test_a_plan_exits_2_and_its_digest_approves_just_that_plan(shared_operator, lab, root, tmp_path):
    planned = shared_operator.runs("plan", "phase1", cwd=root / "docs")
    assert planned.returncode == 2, planned.stderr
    digest = re.search(r"Plan (\w{6}): .* 0 to destroy, 0 unchanged\.\n", planned.stdout)[1]
    words = ("run", "phase1", "--only", "create-vms", "--out")
    stale = shared_operator.runs(*words, str(tmp_path / "stale"), "--approve", "create-vms=000000")
    assert stale.returncode == 3
    assert f"000000 was approved, the plan is now {digest}" in stale.stderr
    assert mutating(lab) == []
    done = shared_operator.runs(*words, str(tmp_path / "run"), "--approve", f"create-vms={digest}")
    assert done.returncode == 0, done.stderr
    approved = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    forms = [(e["form"], e["text"]) for e in approved if e["event"] == "approved"]
    assert forms == [("option", digest)]


@pytest.mark.usefixtures("lab")
def test_a_params_file_elsewhere_and_a_changed_setting_are_run_as_they_are(shared_operator, root, tmp_path):
    shutil.copy(root / "params" / "phase1.yaml", tmp_path / "berlin.yaml")
    words = ("--set", "nodes.talos-worker-1.memory_gib=16", "--only", "1", "--approve", "all")
    done = shared_operator.runs("run", str(tmp_path / "berlin.yaml"), *words, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    notebook = (tmp_path / "run" / "01_create_vms.ipynb").read_text()
    assert "memory 12288 → 16384, with a power cycle" in notebook
    back = shared_operator.runs("run", "phase1", "--only", "1", "--approve", "all", "--out", str(tmp_path / "back"))
    assert back.returncode == 0, back.stderr


def test_all_stages_are_done_a_second_run_changes_nothing_and_no_secret_is_shown(shared_operator, lab, root, tmp_path):
    context = bring_up(lab, root, *[stage.name for stage in STAGES[1:8]])
    first = shared_operator.runs(
        "run", "phase1", "--from", "install-argocd", "--approve", "all", "--out", str(tmp_path / "first")
    )
    assert first.returncode == 0, first.stdout + first.stderr
    planned = shared_operator.runs("plan", "phase1")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    before = mutating(lab)
    second = shared_operator.runs("run", "phase1", "--out", str(tmp_path / "second"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stderr == ""
    assert second.stdout.count(" 0 actions ") == len(STAGES)
    assert mutating(lab)[len(before) :] == []
    context.close()
    shown = [path.read_text() for folder in ("first", "second") for path in (tmp_path / folder).iterdir()]
    shown += [done.stdout + done.stderr for done in (first, planned, second)]
    secrets = secrets_of(lab, root)
    assert len(secrets) > 15
    redactor = Redactor()
    redactor.add(*secrets)
    assert not any(redactor.leaks(text) for text in shown)


def test_no_stage_after_the_first_that_fails_is_started(tmp_path, root, monkeypatch):
    def fails(_request, stage, *_others):
        return StageSummary(
            stage.name, "none.ipynb", status="failed", actions=0, checks=0, total=0, seconds=0.0, exit_code=3
        )

    monkeypatch.setattr(headless, "_run_stage", fails)
    sources = [{"chart": "cilium", "version": "1.20.2", "used": "real"}]
    facts = {"charts": "/srv", "sources": sources}
    request = headless.RunRequest("phase1", {}, "lab", "", STAGES, root, tmp_path, facts=facts)
    reported = []
    assert headless.run(request, report=reported.append) == 3
    assert [summary.stage for summary in reported] == [STAGES[0].name]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [stage["status"] for stage in summary["stages"]] == ["failed"] + ["not run"] * (len(STAGES) - 1)
    (tmp_path / "summary.json").unlink()  # as of a killed run, of which only the journal is left
    for of_run in (summary, json.loads(json.dumps(asdict(read_record(tmp_path).summary)))):
        assert (of_run["charts"], of_run["sources"]) == ("/srv", sources)


def test_a_full_disk_ends_the_run_with_its_path_and_a_summary_is_left_where_there_is_room(tmp_path, root, monkeypatch):
    def fails(_request, stage, *_others):
        monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(os, "fsync", full)
        return StageSummary(stage.name, "none.ipynb", status="failed", exit_code=1)

    def full(descriptor, *_data):
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent == tmp_path / "run":
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "run").mkdir()
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(headless, "_run_stage", fails)
    request = headless.RunRequest("phase1", {}, "lab", "", STAGES[:1], root, tmp_path / "run")
    with pytest.raises(BadFile, match=r"run/events\.jsonl cannot be written: No space left on device") as ended:
        headless.run(request, report=lambda _: None)
    left = tmp_path / "home" / "run-summary.json"
    assert str(left) in ended.value.cause
    assert json.loads(left.read_text())["stages"][0]["status"] == "failed"
    assert present(ended.value).failure == ""


class CellError(Exception):
    """What papermill raises for an error in a cell."""

    ename, evalue, traceback = "ValueError", "no space left on device", ("\x1b[31mTraceback\x1b[0m", "ValueError: no")


@pytest.mark.parametrize(
    ("error", "caught", "expected"),
    [
        (DeadKernelError("the kernel of n.ipynb was killed by SIGKILL\nlog"), None, "F108 A notebook's kernel died"),
        (DeadKernelError("the kernel of n.ipynb was killed by SIGKILL"), 15, "SIGTERM interrupted n.ipynb; run it"),
        (Interrupted("SIGINT"), 2, "SIGINT came between two cells"),
        (RuntimeError("something else"), None, "n.ipynb ended early: something else\n  remedy:  run it again"),
        (CellError(), None, "Traceback\nValueError: no\n  failure: F64 The storage is full"),
    ],
)
def test_an_error_that_is_not_ours_is_explained_by_the_catalogue(error, caught, expected, tmp_path, monkeypatch):
    def fails(*_arguments, **_options):
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", fails)
    signals = Signals()
    signals.caught = caught
    request = headless.RunRequest("phase1", {}, "lab", "", (), tmp_path, tmp_path)
    assert expected in headless._execute(request, "n.ipynb", signals, None)[1]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", 0),
        ("StageMissing", 1),
        ("ApprovalNeeded", 3),
        ("PlanChanged", 3),
        ("CheckFailed", 4),
        ("ParamsError", 64),
        ("ValueError", 1),
        ("ClassVar", 1),
    ],
)
def test_the_exit_code_follows_from_the_errors_name(name, code):
    assert exit_code_of(name) == code
