"""`fluobook render` by the command itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fluobook_lab import life

from fluobook import cli, params
from fluobook.lab import programs as lab_programs

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.lab


@pytest.fixture
def _lab(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    chosen = params.load("phase1", root=ROOT)
    started = life.start(chosen, tmp_path / "lab", root=ROOT, programs=lab_programs(), owner=os.getpid())
    monkeypatch.setenv("FLUOBOOK_LAB", str(started.folder))
    yield
    life.end(started, forget=True)


@pytest.mark.usefixtures("_lab")
def test_what_was_written_is_listed_and_knows_nothing_of_the_lab(tmp_path, capsys):
    assert cli.run(["render", "phase1", "--out", str(tmp_path / "out")]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {file.name for file in files} >= {"talos-cp-1.yaml", "cilium.yaml", "talosconfig"}
    assert not any("127.0.0.1" in file.read_text() for file in files)


def test_the_tree_needs_no_lab_and_no_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(life, "for_phase", None)
    assert cli.run(["render", "phase3", "--gitops", "--out", str(tmp_path)]) == 0
    assert str(tmp_path / "root.yaml") in capsys.readouterr().out


def test_without_a_folder_it_is_a_wrong_usage(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.run(["render", "phase1"]) == 64
    assert "--out" in capsys.readouterr().err
