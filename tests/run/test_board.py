"""The board: what it says of each stage, from the stage's plan and from the journals of earlier runs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fluobook
from fluobook import notebook
from fluobook.display.table import Cell
from fluobook.errors import Unreachable
from fluobook.run.board import board_table, last_runs, read_state, state_of
from fluobook.stages.catalogue import DAY_TWO, STAGES
from fluobook.stages.core.plan import Action, Plan

ROOT = Path(__file__).resolve().parents[2]
WORK = Action("create a", "create", "vm a")


@pytest.mark.parametrize(
    ("plan", "state"),
    [
        (Plan("create-vms", (WORK,)), "~ 1 action"),
        (Plan("create-vms", (WORK, WORK)), "~ 2 actions"),
        (Plan("create-vms", kept=7), "✓ nothing to do"),
        (Plan("preflight"), "· only checks"),
        (Plan("teardown", (replace(WORK, destroys=("fluodata",)),)), "· only on demand"),
        (Plan("approve-csrs", (WORK,), waits_for="bootstrap-kubernetes"), "… waits for bootstrap-kubernetes"),
    ],
)
def test_the_state_of_a_stage_is_that_of_its_plan(plan: Plan, state: str) -> None:
    assert str(state_of(plan)) == state


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unreachable("pve1 does not answer", system="Proxmox VE"), "✗ unknown: pve1 does not answer"),
        (ValueError("a defect"), "✗ unknown: ValueError: a defect"),
    ],
)
def test_a_stage_whose_systems_cannot_be_read_does_not_hide_the_others(error: Exception, state: str) -> None:
    class Context:
        platform = None

        def limited_to(self, _uses: object) -> None:
            raise error

    context: Any = Context()
    assert str(read_state(STAGES[2], context)) == state


def journal(runs: Path, name: str, target: str, *ended: tuple[str, str, float]) -> None:
    """A run folder whose journal says how stages ended."""
    lines: list[dict[str, Any]] = [{"at": "", "event": "run-started", "phase": "phase1", "target": target}]
    for stage, status, seconds in ended:
        lines.append({"at": f"2026-11-28T{name}:00.123+00:00", "event": "notebook-ended", "stage": stage})
        lines[-1] |= {"status": status, "seconds": seconds}
    folder = runs / f"20261128T{name.replace(':', '')}00Z-phase1"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{torn")


def test_the_last_run_of_a_stage_is_the_newest_of_the_same_phase_and_target(tmp_path: Path) -> None:
    journal(tmp_path, "10:00", "lab", ("create-vms", "failed", 1.0), ("preflight", "done", 2.0))
    journal(tmp_path, "11:00", "lab", ("create-vms", "failed", 3.0), ("create-vms", "done", 4.25))
    journal(tmp_path, "12:00", "live", ("create-vms", "interrupted", 5.0))
    (tmp_path / "20261128T130000Z-phase1").mkdir()
    folders = sorted(tmp_path.iterdir(), reverse=True)
    runs = last_runs(folders, "phase1", "lab")
    assert {stage: (run.status, run.seconds) for stage, run in runs.items()} == {
        "create-vms": ("done", 4.25),
        "preflight": ("done", 2.0),
    }
    assert last_runs(folders, "phase2", "lab") == {}
    row = board_table("board", {}, runs).rows[2]
    assert [str(cell) for cell in row] == ["1 create-vms", "… reading", "✓ done", "2026-11-28 11:00 UTC", "4.2 s"]


def test_every_notebook_is_on_the_board_and_can_be_opened_from_it() -> None:
    links = {row[0].link for row in board_table("board", {}, {}).rows}
    assert links == {path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}


def test_the_board_says_how_many_states_are_not_known_yet() -> None:
    stages = [stage.name for stage in (*STAGES, *DAY_TWO)]
    some = {name: Cell("nothing to do", "ok") for name in stages[:4]}
    assert board_table("board", some, {}).note == f"{len(stages) - 4} of {len(stages)} states are not known yet"
    assert board_table("board", dict.fromkeys(stages, Cell("")), {}).note == ""


@pytest.mark.parametrize("watched", [True, False], ids=["in JupyterLab", "headless"])
def test_the_board_does_not_block_the_kernel_and_is_shown_once_and_complete_without_one(
    watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    may_read, read = threading.Event(), threading.Event()

    def state(stage: Any, _context: object) -> Cell:
        assert may_read.wait(30)
        if stage is DAY_TWO[-1]:
            read.set()
        return Cell("nothing to do", "ok")

    monkeypatch.setattr(notebook, "read_state", state)
    monkeypatch.setattr(notebook, "open_context", lambda *_, **__: None)
    monkeypatch.setenv("FLUOBOOK_RENDER", "live" if watched else "final")
    monkeypatch.chdir(ROOT / "notebooks")
    book = fluobook.open_runbook("phase1")
    if watched:
        book.board()
        assert "… reading" in capsys.readouterr().out
        may_read.set()
        assert read.wait(30)
        for thread in threading.enumerate():
            if thread.name == "board":
                thread.join(30)
    else:
        may_read.set()
        book.board()
    shown = capsys.readouterr().out
    last = shown[shown.rindex("fluodata, phase1") :]
    assert last.count("✓ nothing to do") == len(STAGES) + len(DAY_TWO)
    assert watched or shown.count("fluodata, phase1") == 1
