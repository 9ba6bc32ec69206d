"""`fluobook versions` against a lab's chart server, by the command itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fluobook_lab import life

from fluobook import cli, gitops, params
from fluobook.lab import programs as lab_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(REPOSITORY)
    chosen = params.load("phase1", root=REPOSITORY)
    started = life.start(chosen, tmp_path / "lab", root=REPOSITORY, programs=lab_programs(), owner=os.getpid())
    monkeypatch.setenv("FLUOBOOK_LAB", str(started.folder))
    yield
    life.end(started, forget=True)


@pytest.mark.usefixtures("lab")
def test_every_chart_is_compared_with_what_the_labs_repositories_list(capsys):
    assert cli.run(["versions", "phase1", "--target", "lab"]) == 0
    output = capsys.readouterr().out
    for application in gitops.read(REPOSITORY).applications:
        assert not application.chart or f"{application.chart} " in output
    assert "✗ retired" in next(line for line in output.splitlines() if "ingress-nginx" in line)
    assert "unanswered" not in output


def test_a_repository_that_does_not_answer_is_reported_with_exit_code_1(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPOSITORY)
    mirrors = {
        application.repo: "http://127.0.0.1:1"
        for application in gitops.read(REPOSITORY).applications
        if application.chart
    }
    settings = [f"--set=gitops.mirrors={mirrors}".replace("'", '"')]
    assert cli.run(["versions", "--target", "live", *settings]) == 1
    assert "cilium: the chart repository does not answer at 127.0.0.1:1" in capsys.readouterr().err


def test_another_target_is_refused(capsys):
    assert cli.run(["versions", "--target", "moon"]) == 64
    assert "'moon' is not one of 'lab', 'live'" in capsys.readouterr().err
