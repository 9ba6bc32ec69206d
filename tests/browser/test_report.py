"""The report of a large run in a browser: at most six pages of paper, and no wider than a narrow window."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from fluobook.redact import Redactor
from fluobook.run.report import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
PAGES = 6


def large_run(folder: Path) -> Path:
    """The report of ten stages, 110 actions and 90 checks, with a long notebook each."""
    stages: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = [{"event": "run-started", "phase": "phase3", "target": "lab", "cluster": "fluodata"}]
    for number in range(10):
        name = f"stage-{number}"
        stages.append({"stage": name, "notebook": f"0{number}_stage.ipynb", "status": "done", "seconds": 9.0})
        cells = [nbformat.v4.new_markdown_cell(f"paragraph {line} " * 20) for line in range(20)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"0{number}_stage.ipynb")
        for action in range(11):
            common = {"stage": name, "action": f"action {action}"}
            events.append({"event": "intent", **common, "verb": "await", "object": "application " + "long-name-" * 6})
            events.append({"event": "outcome", **common, "result": "done", "evidence": {"wave": action}})
        result = "10.244.0.0/24, 10.244.1.0/24, " * 3 + "resource.customizations.health.argoproj.io_Application" * 2
        checks = [
            {"check": f"check {check} of what the stage did", "passed": True, "result": result} for check in range(9)
        ]
        events.append({"event": "verified", "stage": name, "ok": True, "checks": checks})
    lines = [{"at": f"2026-11-28T10:{n // 60:02}:{n % 60:02}.000+00:00", **line} for n, line in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary = {"phase": "phase3", "target": "lab", "exit_code": 0, "stages": stages}
    (folder / "summary.json").write_text(json.dumps(summary))
    return write_report(folder, Redactor())


def test_the_report_of_a_large_run_fits_on_six_pages_and_in_a_narrow_window(tmp_path: Path, chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 700, "height": 900})
    page.goto(large_run(tmp_path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.locator("figure rect").count() == 120
    assert not page.get_by_text("paragraph 1").first.is_visible()
    page.get_by_text("stage-3: 03_stage.ipynb").click()
    assert page.locator("#\\30 3_stage").get_by_text("paragraph 1").first.is_visible()
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) <= PAGES
    page.close()
