"""The progress of a headless run: lines from its journal's state, a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from fluobook.cli import progress
from fluobook.journal.durations import StageState, Started
from fluobook.journal.journal import StageSummary

if TYPE_CHECKING:
    from pathlib import Path

KIND = ("create-vms", "create", "vm")
NOW = 1000.0


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        (StageState("preflight"), ["preflight: reading the live systems"]),
        (StageState("create-vms", 7, 3), ["create-vms: 3 of 7 done"]),
        (
            StageState(
                "create-vms", 7, 3, {"create a": Started(988.0, KIND, 600.0), "b": Started(999.0, ("", "", ""))}
            ),
            ["create-vms: 3 of 7 done", "  create a: 12 s of about 40 s, limit 600 s", "  b: 1 s"],
        ),
    ],
)
def test_a_stage_shows_its_count_and_the_times_of_what_runs(state: StageState, lines: list[str]) -> None:
    assert progress.lines(state, {KIND: 40.0}, NOW) == lines


def test_many_actions_are_counted() -> None:
    running = {str(number): Started(NOW, KIND) for number in range(progress.LINES + 3)}
    lines = progress.lines(StageState("create-vms", 20, 0, running), {}, NOW)
    assert len(lines) == progress.LINES + 2
    assert lines[-1] == "  + 3 more"


def shown(folder: Path) -> list[str]:
    """What is reported while the progress of a run is shown."""
    reported: list[str] = []
    with progress.shown(folder, [], {}, lambda summary: reported.append(summary.stage)) as report:
        report(StageSummary("create-vms", ""))
    return reported


def test_without_a_terminal_only_the_summaries_appear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(tmp_path) == ["create-vms"]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_the_stage_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    events: list[dict[str, Any]] = [
        {"event": "notebook-started", "stage": "create-vms"},
        {"event": "planned", "stage": "create-vms", "actions": [{}, {}]},
    ]
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert shown(tmp_path) == ["create-vms"]
    assert "create-vms: 0 of 2 done" in terminal.getvalue()


@pytest.mark.parametrize("total", [0, 7])
def test_a_bar_is_drawn_between_the_count_and_what_runs(total: int) -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(progress._drawn(StageState("create-vms", total, 0, {"create a": Started(NOW, KIND)}), {}, NOW))
    count, bar, running = console.file.getvalue().splitlines()
    assert count.startswith("create-vms: ")
    assert set(bar.strip()) <= set("━╸╺- ")
    assert running.strip() == "create a: 0 s"
