"""Draws the pictures in docs/pictures: a run of phase 1 against a lab, its report, and JupyterLab afterwards.

python tools/pictures.py

It drives Chromium as the browser tests do. What it shows is what anybody sees who does the same by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import BOUND, CHROMIUM, KERNEL_IS_IDLE, QUIET, OpenNotebook, serving  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH = 1400
STATUS_BAR = 36
LAST = ".jp-Notebook .jp-CodeCell:has-text('runbook.waves()')"
"""The last cell to be seen: a picture of all is too tall to read."""
FLOWS_FILL_THEIR_TABLE = """() => {
  const flows = [...document.querySelectorAll('.fluobook-grid')].at(-1);
  return flows.scrollHeight > flows.clientHeight;
}"""
PICTURES = ROOT / "docs" / "pictures"
PROGRAM = Path(sys.executable).with_name("fluobook")
NOTEBOOK = "09_observe.ipynb"
WATCHING = 240
"""Seconds that Run All may take."""


def main() -> int:
    """Bring up phase 1 in a lab, take both pictures, and end the lab; returns the exit code."""
    home = Path(tempfile.mkdtemp(prefix="fluobook-pictures-"))
    os.environ["FLUOBOOK_HOME"] = str(home)
    run = home / "runs" / "phase1"
    run.parent.mkdir()
    try:
        subprocess.run([PROGRAM, "lab", "up", "phase1"], check=True, cwd=ROOT)
        subprocess.run([PROGRAM, "run", "phase1", "--approve", "all", "--out", run], check=True, cwd=ROOT)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            report(browser, run / "report.html")
            notebook(browser, home)
            browser.close()
    finally:
        subprocess.run([PROGRAM, "lab", "down", "phase1"], check=False, cwd=ROOT)
    shutil.rmtree(home)
    return 0


def report(browser: Browser, path: Path) -> None:
    """The report from its head to the actions of the first stages."""
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
    page.goto(path.as_uri())
    end = bottom(page, "figure:nth-of-type(4)")
    page.screenshot(path=PICTURES / "report.png", full_page=True, clip={"x": 0, "y": 0, "width": 1000, "height": end})
    page.close()


def notebook(browser: Browser, home: Path) -> None:
    """JupyterLab after Run All, from the first line to the Applications, so that no table is cut."""
    folder = home / "notebooks"
    folder.mkdir()
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        shutil.copy(path, folder)
    with serving(folder, home / "jupyter", FLUOBOOK_LAB=str(home / "lab" / "phase1")) as server:
        page = browser.new_page(viewport={"width": WIDTH, "height": 2600})
        page.set_default_timeout(BOUND * 1000)
        page.goto(f"{server['url']}lab/tree/{NOTEBOOK}?token={server['token']}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.wait_for_function(KERNEL_IS_IDLE)
        opened = OpenNotebook(page)
        opened.run_all()
        opened.cell("stage.verify()").locator(".jp-OutputArea-output").first.wait_for(timeout=WATCHING * 1000)
        page.wait_for_function(FLOWS_FILL_THEIR_TABLE)
        page.set_viewport_size({"width": WIDTH, "height": bottom(page, LAST) + STATUS_BAR})
        page.locator(".jp-Notebook .jp-MarkdownCell").first.scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / "jupyterlab.png")
        page.close()


def bottom(page: Page, selector: str) -> int:
    """Where the first element that fits ends, in pixels from the top of the page."""
    return round(page.locator(selector).first.evaluate("shown => shown.getBoundingClientRect().bottom"))


if __name__ == "__main__":
    sys.exit(main())
