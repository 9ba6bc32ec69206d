"""The life of a lab: how it is found, and how it ends with its owner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fluobook_lab import life
from fluobook_lab.charts import GENERIC, package, sources
from fluobook_lab.charts.upstream import Kept

from fluobook import params
from fluobook.errors import FluobookError, UsageError
from fluobook.lab import programs as lab_programs

BOUND = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """Start a lab of phase 1 for an owner."""

    def begin(owner):
        chosen = params.load("phase1", root=ROOT)
        return life.start(chosen, tmp_path / "lab", root=ROOT, programs=lab_programs(), owner=owner, speed=300)

    return begin


def test_a_process_with_the_number_of_an_ended_lab_is_not_a_lab(tmp_path):
    state = {"pid": os.getpid(), "engine": "embedded", "overlay": {}}
    (tmp_path / "lab.json").write_text(json.dumps(state))
    assert life.find(tmp_path) is None
    (tmp_path / "alive").touch()  # no process holds the lock
    assert life.find(tmp_path) is None


@pytest.mark.lab
def test_a_lab_is_found_while_it_is_up(start):
    lab = start(os.getpid())
    assert life.find(lab.folder) == lab
    assert lab.engine == "embedded"
    life.end(lab)
    assert life.find(lab.folder) is None


@pytest.mark.lab
def test_a_lab_of_another_cluster_with_the_same_phase_is_refused(start, monkeypatch):
    lab = start(os.getpid())
    monkeypatch.setenv("FLUOBOOK_LAB", str(lab.folder))
    assert life.for_phase(params.load("phase1", root=ROOT), root=ROOT, programs=dict) == lab
    other = params.load("phase1", overrides=["cluster.name=berlin"], root=ROOT)
    with pytest.raises(UsageError, match="is up for cluster fluodata, and the params describe berlin"):
        life.for_phase(other, root=ROOT, programs=dict)
    life.end(lab)


@pytest.mark.lab
def test_a_lab_ends_and_removes_its_keys_when_its_owner_is_killed(start):
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lab = start(owner.pid)
    owner.kill()
    owner.wait(BOUND)
    until = time.monotonic() + BOUND
    while lab.folder.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_charts_of_upstream_are_real_where_they_could_be_fetched_and_the_others_have_their_cause(tmp_path, monkeypatch):
    chosen = params.load("phase1", root=ROOT)
    wanted = sources.pins(ROOT, chosen.platform.gitops.repository)
    cilium = next(pin for pin in wanted if pin.chart == "cilium")
    rows = [
        Kept(*(pin.repository, pin.chart, pin.version, pin.repository, "unreachable"), cause="down") for pin in wanted
    ]
    monkeypatch.setattr(
        life, "pull_charts", lambda *_, **__: (tmp_path, [row for row in rows if row.chart != "cilium"])
    )
    with pytest.raises(FluobookError, match="none of the tree's charts can be fetched") as caught:
        life._charts("upstream", chosen, ROOT, lab_programs())
    assert (caught.value.exit_code, "down" in caught.value.cause) == (1, True)
    (tmp_path / "x.tgz").write_bytes(package(GENERIC, "cilium", cilium.version).archive)
    order, real = life._charts("upstream", chosen, ROOT, lab_programs())
    assert (order["charts"], order["folder"]) == ("upstream", str(tmp_path))
    used = {source.chart or source.repository: source for source in sources.resolve(ROOT, "", real)}
    assert used["cilium"].used == "real"
    assert (used["longhorn"].used, used["longhorn"].cause) == ("stand-in", "down")
    assert life._charts("", chosen, ROOT, {})[0] == {"charts": "stand-ins", "folder": "", "causes": {}}
    monkeypatch.setenv("FLUOBOOK_LAB_CHARTS", str(tmp_path))
    assert life._charts("", chosen, ROOT, lab_programs())[0]["charts"] == str(tmp_path)
