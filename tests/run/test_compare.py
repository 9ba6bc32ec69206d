"""Two runs are compared by what their records say; the command line lists, verifies and compares runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import cli
from fluobook.cli import commands
from fluobook.journal import chain
from fluobook.journal.journal import Journal, read, summary_of
from fluobook.redact import Redactor
from fluobook.run.compare import differences

if TYPE_CHECKING:
    from pathlib import Path

STARTED = {
    "phase": "phase1",
    "target": "lab",
    "stages": ["create-vms"],
    "commit": "abc",
    "versions": {"talos": "1.13.9"},
}


def make(
    runs: Path, time: str, *, objects: tuple[str, ...], seconds: float = 2.0, passed: bool = True, **facts: Any
) -> Path:
    """A run folder: objects that were created, each in some seconds, and a check."""
    folder = runs / f"20261128T{time}00Z-phase1"
    folder.mkdir(parents=True)
    times = iter(
        f"2026-11-28T10:00:{second:06.3f}+00:00" for second in (0, 1, 1, *(1, 1 + seconds) * len(objects), 9, 9, 9)
    )
    journal = Journal(folder / "events.jsonl", Redactor(), clock=lambda: next(times))
    journal.write("run-started", **{**STARTED, **facts})
    journal.write("notebook-started", stage="create-vms", notebook="01_create_vms.ipynb")
    actions = [{"verb": "create", "object": f"vm {name}", "reason": "missing"} for name in objects]
    journal.write("planned", stage="create-vms", digest=f"{len(objects)}", actions=actions)
    for name in objects:
        journal.write("intent", stage="create-vms", action=f"create {name}", verb="create", object=f"vm {name}")
        journal.write("outcome", stage="create-vms", action=f"create {name}", result="done")
    checks = [{"check": "every VM runs", "passed": passed, "result": "1 of 1" if passed else "0 of 1"}]
    journal.write("verified", stage="create-vms", ok=passed, checks=checks)
    journal.write("notebook-ended", stage="create-vms", status="done" if passed else "failed", seconds=8.0)
    journal.write("run-ended", exit_code=0 if passed else 4)
    journal.close()
    path = folder / "events.jsonl"
    summary = {"phase": "phase1", "target": "lab", "exit_code": 0 if passed else 4, "journal": vars(chain.head(path))}
    summary["stages"] = [vars(stage) for stage in summary_of(read(path)).stages]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def rows(folders: tuple[Path, Path]) -> dict[str, list[list[str]]]:
    tables = differences(*folders)
    return {table.title.partition(":")[0]: [[str(cell) for cell in row] for row in table.rows] for table in tables}


def test_two_runs_that_did_the_same_do_not_differ(tmp_path: Path) -> None:
    first, second = make(tmp_path, "1000", objects=("a",)), make(tmp_path, "1100", objects=("a",), seconds=2.5)
    assert not any(rows((first, second)).values())
    assert next(table.title for table in differences(first, second)) == "runs: no differences"


def test_versions_plans_durations_checks_and_outcomes_are_compared(tmp_path: Path) -> None:
    first = make(tmp_path, "1000", objects=("a", "b"))
    changed = {"versions": {"talos": "1.14.0", "kubernetes": "1.35.4"}, "commit": "def"}
    second = make(tmp_path, "1100", objects=("b", "c"), seconds=6, passed=False, **changed)
    compared = rows((first, second))
    assert compared["runs"] == [
        ["outcome", "done", "failed in create-vms"],
        ["exit_code", "0", "4"],
        ["commit", "abc", "def"],
        ["talos version", "1.13.9", "1.14.0"],
        ["kubernetes version", "", "1.35.4"],
    ]
    assert compared["stages"] == [["create-vms", "done, 2 actions, plan 2, 8.0 s", "failed, 2 actions, plan 2, 8.0 s"]]
    assert compared["planned actions"] == [
        ["create-vms", "create vm a", "missing", "-"],
        ["create-vms", "create vm c", "-", "missing"],
    ]
    assert compared["durations of actions"] == [["create-vms", "create b", "2.0 s", "6.0 s"]]
    assert compared["checks"] == [["create-vms", "every VM runs", "✓ 1 of 1", "✗ 0 of 1"]]


def test_a_torn_journal_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    first, second = make(tmp_path, "1000", objects=("a",)), make(tmp_path, "1100", objects=("a",))
    lines = (second / "events.jsonl").read_text().splitlines()
    odd = '{"event": "planned", "stage": "create-vms", "actions": [5, {"verb": []}]}'
    (second / "events.jsonl").write_text("\n".join([*lines[:2], odd, '{"event": "verified", "checks": {}}', "{torn"]))
    assert rows((first, second))["planned actions"]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two runs of a repository, the earlier one first."""
    monkeypatch.setattr(commands, "root", lambda: tmp_path)
    runs = tmp_path / "runs"
    return make(runs, "1000", objects=("a",)), make(runs, "1100", objects=("a", "b"), passed=False)


def test_the_command_line_lists_runs_the_newest_first(
    history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["runs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(run["run"], run["outcome"], run["exit_code"]) for run in listed] == [
        (history[1].name, "failed in create-vms", 4),
        (history[0].name, "done", 0),
    ]
    assert cli.run(["runs"]) == 0
    assert "2026-11-28 10:00:00  8.0 s     failed in create-vms  4" in capsys.readouterr().out


def test_the_command_line_compares_the_two_newest_runs_or_those_named(
    history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], [str(folder) for folder in history]):
        assert cli.run(["report", "--diff", *arguments]) == 0
        shown = capsys.readouterr().out
        assert f"stages\nstage       {history[0].name}" in shown
        assert "durations of actions: no differences" in shown
    assert cli.run(["report", "--diff", str(history[0])]) == 64
    assert cli.run(["report", *map(str, history)]) == 64


@pytest.mark.parametrize("content", ["", "{torn", "<<<<<<< HEAD\n{}\n=======\n>>>>>>> b", "[]", "\0"])
def test_a_damaged_summary_is_named_by_every_command(
    history: tuple[Path, Path], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (history[1] / "summary.json").write_text(content)
    assert cli.run(["report", "--verify", str(history[1])]) == 4
    (finding,) = capsys.readouterr().out.splitlines()
    assert finding.startswith("✗ summary.json ")
    for arguments in (["runs"], ["report", "--diff"]):
        assert cli.run(arguments) == 0
        assert finding.removeprefix("✗ ") in capsys.readouterr().out


def test_no_value_of_an_altered_record_changes_what_a_terminal_shows(
    history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    summary = history[1] / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"phase": "\x1b[31mred\u202e", "charts": "\x07"}))
    for arguments in (["runs"], ["report", "--diff"]):
        assert cli.run(arguments) == 0
        assert "\\x1b[31mred\\u202e" in (shown := capsys.readouterr().out)
        assert shown.replace("\n", "").isprintable()


def test_a_folder_without_a_run_is_no_newest_run(
    history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (history[0].parent / "20261203T000000Z-phase1").mkdir()
    assert cli.run(["report", "--diff"]) == 0
    assert history[1].name in capsys.readouterr().out
    assert cli.run(["report", "--verify"]) == 0
    assert history[1].name in capsys.readouterr().out


def test_a_damaged_journal_is_one_finding(history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = history[0] / "events.jsonl"
    path.write_text(path.read_text() * 2)
    assert cli.run(["report", "--verify", str(history[0])]) == 4
    assert capsys.readouterr().out == "✗ lines 9 to 16 are copies of lines 1 to 8\n"


def test_a_run_is_verified_with_its_summary(history: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = history[0] / "events.jsonl"
    assert cli.run(["report", "--verify", str(history[0])]) == 0
    assert f"8 lines, the last with SHA-256 {chain.head(path).sha256}" in capsys.readouterr().out
    summary = history[0] / "summary.json"
    summary.write_text(summary.read_text().replace('"exit_code": 0', '"exit_code": 3', 1))
    assert cli.run(["report", "--verify", str(history[0])]) == 4
    assert "✗ summary.json says otherwise than the journal: exit_code" in capsys.readouterr().out
    path.write_text(path.read_text().replace("every VM runs", "every VM walks"))
    assert cli.run(["report", "--verify", str(history[0])]) == 4
    assert "✗ line 6 was altered, or lines between it and line 7 were removed" in capsys.readouterr().out
