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

from fluobook import params
from fluobook.errors import UsageError
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
