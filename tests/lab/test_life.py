"""The life of a lab: who is taken for one, and what is left when its owner is killed."""

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


def test_a_process_that_got_the_number_of_a_dead_lab_is_not_taken_for_it(tmp_path):
    told = {"pid": os.getpid(), "engine": "embedded", "overlay": {}}
    (tmp_path / "lab.json").write_text(json.dumps(told))
    assert life.find(tmp_path) is None
    (tmp_path / "alive").touch()  # nobody holds it
    assert life.find(tmp_path) is None


@pytest.mark.lab
def test_a_lab_is_found_while_it_lives_and_tells_its_engine(start):
    lab = start(os.getpid())
    assert life.find(lab.folder) == lab
    assert lab.engine == "embedded"
    life.end(lab)
    assert life.find(lab.folder) is None


@pytest.mark.lab
def test_a_lab_whose_owner_is_killed_ends_and_leaves_no_key_behind(start):
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lab = start(owner.pid)
    owner.kill()
    owner.wait(BOUND)
    until = time.monotonic() + BOUND
    while lab.folder.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
