"""JupyterLab on copies of the notebooks, in Chromium, beside a lab of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from fluobook_lab import life
from playwright.sync_api import expect, sync_playwright

from fluobook import params
from fluobook.lab import programs as lab_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator

ROOT = Path(__file__).parents[2]
CHROMIUM = Path(os.environ.get("FLUOBOOK_CHROMIUM", "/usr/bin/chromium"))
WITHOUT = "FLUOBOOK_WITHOUT_BROWSER"
BOUND = 60
"""Seconds that anything here may take."""

KERNEL = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
KERNEL_IS_IDLE = "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get(WITHOUT) != "1":
        return
    browser = [item for item in items if item.get_closest_marker("browser")]
    config.hook.pytest_deselected(items=browser)
    items[:] = [item for item in items if item not in browser]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module only: Playwright runs an event loop in this thread, and other tests want their own."""
    if not CHROMIUM.exists():
        pytest.fail(
            f"{CHROMIUM} is missing: `apt-get install chromium`, or say where one is with FLUOBOOK_CHROMIUM, "
            f"or leave these tests out with {WITHOUT}=1",
            pytrace=False,
        )
    expect.set_options(timeout=BOUND * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET), timeout=BOUND * 1000)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Jupyter:
    """A JupyterLab: where its notebooks are, where its kernels look for a lab, and its address."""

    notebooks: Path
    lab: Path
    url: str
    token: str


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab on a folder of its own, so that what it saves touches no file of the repository."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "notebooks").mkdir()
    with serving(folder / "notebooks", folder / "state", FLUOBOOK_LAB=str(folder / "lab")) as server:
        yield Jupyter(folder / "notebooks", folder / "lab", server["url"], server["token"])


@pytest.fixture
def lab(jupyter: Jupyter) -> Iterator[life.Lab]:
    """A lab of phase 1 at the usual speed: states can be seen changing, on a machine with a lot of load too."""
    chosen = params.load("phase1", root=ROOT)
    started = life.start(chosen, jupyter.lab, root=ROOT, programs=lab_programs(), owner=os.getpid())
    yield started
    life.end(started)


@contextmanager
def serving(folder: Path, state: Path, **environment: str) -> Iterator[dict[str, Any]]:
    """A JupyterLab server on a folder; its URL and token."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLUOBOOK_")} | environment
    for name in ("CONFIG", "RUNTIME", "DATA"):
        kept[f"JUPYTER_{name}_DIR"] = str(state / name.lower())
    kept |= {"JUPYTERLAB_SETTINGS_DIR": str(state / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces")}
    quiet = state / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": folder,
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with (state / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=kept)
    try:
        yield _address(server, state)
    finally:
        server.terminate()
        server.wait(BOUND)


def _address(server: subprocess.Popen[bytes], state: Path) -> dict[str, Any]:
    """What the server writes about itself once it listens."""
    until = time.monotonic() + BOUND
    while time.monotonic() < until and server.poll() is None:
        path = state / "runtime" / f"jpserver-{server.pid}.json"
        state_file = json.loads((path.read_text() if path.exists() else "") or "{}")
        if state_file.get("port"):
            return dict(state_file)
        time.sleep(0.05)
    pytest.fail(f"JupyterLab did not come up:\n{(state / 'log').read_text()[-3000:]}", pytrace=False)


@dataclass(frozen=True)
class OpenNotebook:
    """A notebook in JupyterLab, and what a person does with it."""

    page: Any

    def run_all(self) -> None:
        """Run → Run All Cells."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def cell(self, code: str) -> Locator:
        """The code cell that holds this text."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").filter(
            has=self.page.locator(".cm-content", has_text=code)
        )

    def click(self, button: str) -> None:
        """Click a button of the gate, once it is shown; an error in its place is reported."""
        shown = self.page.locator(".jupyter-button", has_text=button)
        broken = self.page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")
        shown.or_(broken).first.wait_for()
        assert not broken.count(), broken.first.inner_text()
        shown.click()

    def theme(self, name: str) -> None:
        """Settings → Theme → JupyterLab Light or Dark."""
        self.page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = "false" if name.endswith("Dark") else "true"
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)


@pytest.fixture
def opened(
    chromium: Browser, jupyter: Jupyter, request: pytest.FixtureRequest
) -> Iterator[Callable[..., OpenNotebook]]:
    """Opens a notebook of the repository, or one that holds the given code; its kernel is idle."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(BOUND * 1000)

    def bring(name: str = "", code: str = "") -> OpenNotebook:
        path = jupyter.notebooks / f"{request.node.name}.ipynb"
        if name:
            shutil.copy(ROOT / "notebooks" / name, path)
        else:
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=KERNEL), path)
        page.goto(f"{jupyter.url}lab/tree/{path.name}?token={jupyter.token}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.wait_for_function(KERNEL_IS_IDLE)
        return OpenNotebook(page)

    yield bring
    page.close()
