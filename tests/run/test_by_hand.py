"""A run by hand: its notebooks, what a stage records in JupyterLab, and what `fluobook open` leaves."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyterlab.commands import get_app_dir

from fluobook import params
from fluobook.context import POLICIES, RunContext
from fluobook.errors import ApprovalNeeded, CheckFailed
from fluobook.journal.journal import Journal, read, summary_of
from fluobook.notebook import StageRun
from fluobook.redact import Redactor
from fluobook.run.by_hand import SETTINGS, copy_notebooks, write_record
from fluobook.run.contents import RecordedContents
from fluobook.stages.core.check import Check
from fluobook.stages.core.plan import Action, Answer, Approval, Gate, Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = params.repository_root()


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebooks_of_a_run_are_clean_and_open_its_phase_and_target(tmp_path: Path) -> None:
    source = tmp_path / "repository" / "notebooks"
    source.mkdir(parents=True)
    for name in ("01_create_vms.ipynb", "11_check.ipynb"):
        (source / name).write_text((ROOT / "tests" / "notebooks" / "references" / name).read_text())
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    run = tmp_path / "run"
    run.mkdir()
    copy_notebooks(tmp_path / "repository", run, phase="phase2", target="live")

    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    for name in before:
        cells = nbformat.read(run / name, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    parameters = code_of(run / "01_create_vms.ipynb")[0].splitlines()
    assert parameters[0].startswith('phase: str = "phase2"      #')
    assert parameters[1].startswith('target: str = "live"        #')
    assert parameters[2].startswith('approve: str = ""')
    assert code_of(run / "01_create_vms.ipynb")[1:] == code_of(source / "01_create_vms.ipynb")[1:]


def test_links_of_a_run_s_notebooks_still_lead_into_the_repository(tmp_path: Path) -> None:
    copy_notebooks(ROOT, tmp_path, phase="phase1", target="lab")
    words = "".join(cell.source for path in tmp_path.glob("*.ipynb") for cell in nbformat.read(path, 4).cells)
    links = [part.partition(")")[0].partition("#")[0] for part in words.split("](")[1:]]
    assert [link for link in links if "/" in link]
    assert [link for link in links if not (tmp_path / link).exists()] == []
    assert "../" not in "".join(links)


def stage_by_hand(
    folder: Path,
    *,
    observed: Sequence[tuple[Action, ...]] = ((),),
    passed: bool = True,
    answer: str = "yes",
) -> StageRun:
    """A stage as JupyterLab runs it: each observation is the actions that are still to do."""
    left = iter(observed)
    stage = Stage(
        1,
        "create-vms",
        "Create",
        lambda _context: next(left),
        lambda _platform, actions: Plan("create-vms", actions, kept=1),
        lambda _context, _action, _report: {},
        lambda _context, _observation: [Check("a VM exists", passed, "1 of 1")],
    )
    redactor = Redactor()
    journal = Journal(folder / "events.jsonl", redactor)
    journal.write("run-started", phase="phase1", target="lab", stages=["preflight", "create-vms"])
    platform = params.load("phase1", root=ROOT).platform
    context = RunContext("phase1", platform, "lab", folder, folder / "home", redactor, journal)
    ask = lambda _question: Answer("prompt", answer)  # noqa: E731
    return StageRun(stage, context, Gate(Approval(), POLICIES["lab"], "fluodata", ask))


def events(folder: Path) -> list[str]:
    return [event["event"] for event in read(folder / "events.jsonl")]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUOBOOK_RENDER", "live")


WORK = Action("create a", "create", "vm a")


@pytest.mark.usefixtures("watched")
def test_a_stage_by_hand_records_its_begin_its_end_and_the_seconds_of_work(tmp_path: Path) -> None:
    stage = stage_by_hand(tmp_path, observed=[(WORK,), (WORK,), ()])
    stage.apply(stage.plan())
    stage.verify()
    recorded = events(tmp_path)
    assert recorded[:3] == ["run-started", "notebook-started", "planned"]
    assert recorded[-3:] == ["applied", "verified", "notebook-ended"]
    summary = summary_of(read(tmp_path / "events.jsonl"))
    assert [(s.status, s.notebook, s.actions) for s in summary.stages] == [
        ("not run", "", 0),
        ("done", "01_create_vms.ipynb", 1),
    ]


@pytest.mark.usefixtures("watched")
def test_a_stage_by_hand_that_is_refused_or_fails_is_recorded_as_such_and_may_be_done_later(tmp_path: Path) -> None:
    stage = stage_by_hand(tmp_path, observed=[(WORK,), ()], passed=False, answer="no")
    with pytest.raises(ApprovalNeeded):
        stage.apply(stage.plan())
    assert summary_of(read(tmp_path / "events.jsonl")).stages[1].status == "refused"
    with pytest.raises(CheckFailed):
        stage.verify()
    last = summary_of(read(tmp_path / "events.jsonl")).stages[1]
    assert last.status == "failed"
    assert last.error.startswith("CheckFailed: ")
    again = stage_by_hand(tmp_path)
    again.plan()
    again.verify()
    assert summary_of(read(tmp_path / "events.jsonl")).stages[1].status == "done"


@pytest.mark.usefixtures("watched")
def test_what_another_tab_has_done_since_the_plan_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_by_hand(tmp_path, observed=[(WORK,), ()])
    stage.apply(stage.plan())
    assert "no changes, what was planned has been done in the meantime" in capsys.readouterr().out
    assert read(tmp_path / "events.jsonl")[-1] | {"at": ""} == {
        "at": "",
        "event": "applied",
        "stage": "create-vms",
        "digest": stage_by_hand(tmp_path, observed=[(WORK,)]).plan().digest,
        "actions": 0,
    }


@pytest.mark.usefixtures("watched")
def test_the_checks_are_about_what_another_run_has_done_since_the_plan(tmp_path: Path) -> None:
    stage = stage_by_hand(tmp_path, observed=[(WORK,), (), ()])
    seen: list[object] = []
    stage.stage = replace(stage.stage, verify=lambda _, observation: seen.append(observation) or [])
    stage.apply(stage.plan())
    stage.verify()
    assert seen == [()]


def test_a_headless_stage_leaves_begin_and_end_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUOBOOK_RENDER", "final")
    stage = stage_by_hand(tmp_path)
    stage.apply(stage.plan())
    stage.verify()
    assert events(tmp_path) == ["run-started", "planned", "applied", "verified"]


def test_a_plan_names_the_cluster_and_the_target(tmp_path: Path) -> None:
    plan = stage_by_hand(tmp_path, observed=[(WORK,)]).plan()
    assert plan.table().title == "plan of create-vms for fluodata, rehearsal in the lab"
    assert plan.digest == Plan("create-vms", (WORK,), kept=1).digest


@pytest.mark.usefixtures("watched")
def test_the_record_of_a_run_by_hand_is_that_of_a_headless_run(tmp_path: Path) -> None:
    stage = stage_by_hand(tmp_path)
    stage.plan()
    stage.verify()
    cells = [nbformat.v4.new_markdown_cell("# 1 · Create the virtual machines")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_create_vms.ipynb")
    stage.context.journal.write("run-ended", exit_code=0)
    write_record(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["phase"], summary["target"], summary["exit_code"]) == ("phase1", "lab", 0)
    assert "1 · Create the virtual machines" in (tmp_path / "report.html").read_text()


def test_the_settings_are_those_of_this_jupyterlab() -> None:
    """A setting that JupyterLab does not know is ignored silently."""
    schemas: dict[str, Any] = {}
    for plugin in SETTINGS:
        package, _, name = plugin.partition(":")
        path = Path(get_app_dir()) / "schemas" / package / f"{name}.json"
        schemas[plugin] = json.loads(path.read_text())["properties"]
    assert {plugin: set(SETTINGS[plugin]) <= set(schemas[plugin]) for plugin in SETTINGS} == dict.fromkeys(
        SETTINGS, True
    )


def test_a_notebook_is_saved_without_the_state_of_its_widgets(tmp_path: Path) -> None:
    state = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"m": {"state": {"value": "x"}}}}}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")], metadata=state)
    model = {"type": "notebook", "format": "json", "content": notebook}
    asyncio.run(RecordedContents(root_dir=str(tmp_path)).save(model, "01_create_vms.ipynb"))
    assert "widgets" not in nbformat.read(tmp_path / "01_create_vms.ipynb", as_version=4).metadata


def test_jupyterlab_ends_when_the_process_that_started_it_is_gone() -> None:
    code = "import threading; from fluobook.run.contents import end_with_input; end_with_input()"
    code += "; print('ready', flush=True); threading.Event().wait()"
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], **streams)
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    process.stdin.close()  # as the kernel does for a process that was killed
    assert process.wait(60) == -signal.SIGTERM
    process.stdout.close()
