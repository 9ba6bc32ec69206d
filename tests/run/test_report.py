"""The head of the HTML report says what happened, when, and what failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from fluobook.redact import Redactor
from fluobook.run.report import write_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one stage that failed."""
    stage: dict[str, Any] = {"stage": "create-vms", "notebook": "01_create_vms.ipynb", "status": "failed"}
    stage |= {"actions": 1, "checks": 0, "total": 0, "seconds": 1.5, "exit_code": 1}
    stage |= {"error": "\x1b[31mTaskFailed\x1b[39m: no room on <local-lvm>, the token is hunter2-hunter2"}
    summary = {"phase": "phase1", "target": "lab", "exit_code": 1, "stages": [stage]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    started = {"at": "2026-11-23T20:26:20.123+00:00", "event": "run-started"}
    (tmp_path / "events.jsonl").write_text(json.dumps(started) + "\n")
    cells = [nbformat.v4.new_markdown_cell("# 1 · Create the virtual machines")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / stage["notebook"])
    return tmp_path


def written(run: Path, *secrets: str) -> str:
    redactor = Redactor()
    redactor.add(*secrets)
    return write_report(run, redactor).read_text()


def test_the_head_says_when_the_run_began_how_long_it_took_and_how_it_ended(run: Path) -> None:
    assert "began 2026-11-23 20:26:20 UTC, 1.5 s in all, exit code 1" in written(run)


def test_an_error_stands_at_the_head_as_plain_text(run: Path) -> None:
    head = written(run).partition("<section")[0]
    assert "<pre>TaskFailed: no room on &lt;local-lvm&gt;" in head


def test_a_secret_in_an_error_is_masked(run: Path) -> None:
    assert "hunter2" not in written(run, "hunter2-hunter2")


def test_a_stage_is_linked_to_its_notebook(run: Path) -> None:
    page = written(run)
    assert '<a href="#01_create_vms">create-vms</a>' in page
    assert '<section id="01_create_vms">' in page


def test_a_run_without_a_journal_still_has_a_report(run: Path) -> None:
    (run / "events.jsonl").unlink()
    assert '<p class="fluobook-note">1.5 s in all, exit code 1' in written(run)
