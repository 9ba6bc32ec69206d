"""`fluobook open`: one URL, a page that shows the stages, and the record of a run at its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from fluobook.waiting import Cancellation, wait_until
from tests.browser.conftest import BOUND, ROOT, OpenNotebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

PARTS = ("notebooks", "params", "talos", "cluster-gitops", "docs", ".sops.yaml", ".gitignore", "pyproject.toml")
SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden)"

pytestmark = [pytest.mark.browser, pytest.mark.lab, pytest.mark.timeout(400)]


class Run:
    """A process of `fluobook open` in a repository of its own."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUOBOOK_")}
        folders = {f"JUPYTER_{name}_DIR": str(state / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")}
        self.environment = kept | folders | {"FLUOBOOK_HOME": str(state / "home")}
        self.command = [str(Path(sys.executable).with_name("fluobook")), "open", "phase1", "--no-browser"]
        self.process = subprocess.Popen(
            self.command, cwd=root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(("http", "Traceback")):
                break

    def fluobook(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of fluobook beside it."""
        command = [self.command[0], *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=BOUND, check=False
        )

    def end(self, number: signal.Signals) -> str:
        """Send a signal, wait for the end; returns what was printed."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=BOUND)[0]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    root = tmp_path / "repository"
    for part in PARTS:
        source = ROOT / part
        root.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / part)
    opened = Run(root, tmp_path / "state")
    yield opened
    if opened.process.poll() is None:
        opened.end(signal.SIGTERM)


def await_text(path: Path, text: str) -> None:
    """Wait until a file contains a text."""
    waiting = {"timeout": BOUND, "cancellation": Cancellation()}
    wait_until(lambda: text in path.read_text() or None, what=f"{text} in {path}", **waiting)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def bytes_of(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def test_a_run_by_hand_is_a_run_like_any_other(chromium: Browser, run: Run) -> None:
    assert run.lines[-1].startswith("http://127.0.0.1:"), run.lines
    assert sum("http" in line for line in run.lines) == 1
    assert any("cluster fluodata, rehearsal in the lab (embedded engine" in line for line in run.lines)
    folder = next((run.root / "runs").iterdir())
    assert f"run folder: {folder}" in run.lines
    url, before = run.lines[-1], content(run.root / "notebooks")

    page: Any = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(BOUND * 1000)
    page.goto(url)
    board = page.locator(f"{SHOWN} table.fluobook")
    expect(board.locator("tr", has_text="create-vms").first).to_contain_text("7 actions")
    expect(board).to_contain_text("waits for create-vms")
    with page.expect_websocket(lambda socket: "/channels" in socket.url) as opened:
        board.get_by_role("link", name="1 create-vms").click()
    # JupyterLab runs nothing before its kernel answers. What it asks afterwards, it asks while the first cells run.
    with opened.value.expect_event("framereceived", lambda frame: b"kernel_info_reply" in bytes_of(frame)):
        page.locator(f"{SHOWN} h1", has_text="Create the virtual machines").wait_for()
    notebook = OpenNotebook(page)
    notebook.run_all()
    notebook.page.locator(".jupyter-button", has_text="Approve").wait_for()
    page.close()  # while the gate is open
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(BOUND * 1000)
    page.goto(url.replace("index.ipynb", "01_create_vms.ipynb"))
    OpenNotebook(page).click("Approve")
    page.close()  # while the cell runs
    events = folder / "events.jsonl"
    await_text(events, '"notebook-ended", "stage": "create-vms"')
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(BOUND * 1000)
    page.goto(url.replace("index.ipynb", "01_create_vms.ipynb"))
    notebook = OpenNotebook(page)
    expect(notebook.cell("stage.apply(plan)").locator("caption")).to_contain_text("7 of 7 done")
    expect(notebook.cell("stage.verify()").locator("caption")).to_contain_text("checks of create-vms")
    assert folder.name in run.fluobook("open", "phase1").stdout
    assert run.fluobook("open", "phase1").stdout.splitlines()[-1] == url
    report = folder / "report.html"
    await_text(report, "create-vms")
    page.close()

    assert f"report: {report}" in run.end(signal.SIGINT)
    assert run.process.returncode == 0
    assert "checks of create-vms" in report.read_text()
    assert "checks of create-vms" in (folder / "01_create_vms.ipynb").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    stages = {stage["stage"]: (stage["status"], stage["actions"]) for stage in summary["stages"]}
    assert (stages["create-vms"], stages["observe"]) == (("done", 7), ("not run", 0))
    assert json.loads((folder / "events.jsonl").read_text().splitlines()[-1])["event"] == "run-ended"
    assert content(run.root / "notebooks") == before
    assert "no lab of phase1 is up" in run.fluobook("lab", "status", "phase1").stdout
