"""`fluobook lab power` and `fluobook lab inject`: a lab's VMs and faults, by the commands themselves."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab import life

from fluobook import cli, params
from fluobook.context import POLICIES, RunContext
from fluobook.lab import programs as lab_programs
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.run.rehearsal import context_in
from fluobook.stages import catalogue
from fluobook.stages.core.plan import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

ROOT = params.repository_root()
NODE = "talos-worker-1"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunContext]:
    """The context of a background lab of phase 1 with its VMs."""
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    chosen = params.load("phase1", root=ROOT)
    folder = life.folder_of("phase1")
    started = life.start(chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=300)
    with closing(context_in(started, chosen, root=ROOT, redactor=Redactor())) as context:
        gate = Gate(Approval.parse("all"), POLICIES["lab"], chosen.platform.cluster.name)
        stage = stage_run(catalogue.find("create-vms"), context, gate)
        stage.apply(stage.plan())
        yield context
    life.end(started, forget=True)


def test_vms_are_switched_and_faults_are_changed_while_the_lab_is_up(lab: RunContext, capsys: Any) -> None:
    node = lab.platform.node(NODE)
    proxmox = lab.proxmox(lab.platform.endpoint_of(node).name)
    for state, status in (("off", "stopped"), ("off", "stopped"), ("on", "running")):
        assert cli.run(["lab", "power", "phase1", state, NODE]) == 0
        assert proxmox.vm_status(node.host, node.vmid)["status"] == status
    assert cli.run(["lab", "inject", "phase1", "factory.403", "git.401"]) == 0
    assert cli.run(["lab", "inject", "phase1"]) == 0
    assert cli.run(["lab", "inject", "phase1", "factory.nothing"]) == 64
    assert cli.run(["lab", "power", "phase1", "off", "nobody"]) == 64
    printed = "".join(capsys.readouterr())
    assert f"{NODE} is off" in printed
    assert "injected from now on: factory.403, git.401" in printed
    assert "injected from now on: nothing" in printed
    assert "factory.nothing: no such fault" in printed
    assert "nobody: no such node" in printed


def test_without_a_lab_there_is_nothing_to_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    assert cli.run(["lab", "power", "phase1", "off", NODE]) != 0
    assert "fluobook lab up phase1" in "".join(capsys.readouterr())
