"""A person in JupyterLab: the gate asks, the table changes in place, and both themes can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab import life
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., Any]

pytestmark = [pytest.mark.browser, pytest.mark.lab]

WATCH = """area => {
  area.dataset.watched = 'yes';
  window.frames_seen = [];
  const look = () => {
    const tables = [...area.querySelectorAll('table.fluobook')];
    if (!tables.length || !tables[0].tBodies.length) return;
    const rows = [...tables[0].tBodies[0].rows].map(row => row.cells[0].innerText.replace(/\\s+/g, ' ').trim());
    const frame = {tables: tables.length, rows};
    if (JSON.stringify(window.frames_seen.at(-1)) !== JSON.stringify(frame)) window.frames_seen.push(frame);
  };
  new MutationObserver(look).observe(area, {childList: true, subtree: true, characterData: true});
}"""
"""Notes every state of the first table in an output area, from now on."""

CONTRASTS = """() => {
  const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (...layers) => {
    pixel.clearRect(0, 0, 1, 1);
    for (const colour of layers) { pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1); }
    return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = channels => channels.map(c => c / 255)
    .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.unshift(getComputedStyle(n).backgroundColor);
    return ['#fff', ...layers];
  };
  return [...document.querySelectorAll('.fluobook caption, .fluobook th, .fluobook td, .fluobook-note')]
    .filter(node => node.innerText.trim())
    .map(node => {
      const below = behind(node), paper = light(rgb(...below));
      const ink = light(rgb(...below, getComputedStyle(node).color));
      return {text: node.innerText, tone: node.className,
              contrast: (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)};
    });
}"""
"""The contrast of every text in our tables with what is behind it, as WCAG 2 reckons it."""

READABLE = 4.5
"""What WCAG 2 asks of text, level AA."""


EVERY_TONE = """
from fluobook.display.table import GLYPHS, Cell, Table
Table("every tone", ["state", "text"], [[Cell(tone, tone), tone] for tone in GLYPHS], note="a note")
"""


@pytest.mark.usefixtures("lab")
def test_a_person_approves_and_sees_the_table_change_in_place(opened: Open) -> None:
    notebook = opened("01_create_vms.ipynb")
    area = notebook.cell("stage.apply(plan)").locator(".jp-OutputArea").first
    notebook.run_all()
    expect(area).to_contain_text("7 to create, 0 to change, 0 to destroy, 0 unchanged.")
    area.evaluate(WATCH)
    notebook.click("Approve")

    expect(area.locator("caption")).to_contain_text("7 of 7 done")
    expect(notebook.cell("stage.verify()").locator("caption")).to_contain_text("checks of create-vms")
    frames = notebook.page.evaluate("window.frames_seen")
    assert {frame["tables"] for frame in frames} == {1}, "each state replaced the one before it"
    assert {len(frame["rows"]) for frame in frames} == {7}
    assert "✓ done" not in frames[0]["rows"]
    assert set(frames[-1]["rows"]) == {"✓ done"}
    assert area.get_attribute("data-watched") == "yes", "it is still the same output area"


def test_a_rejected_plan_changes_nothing(opened: Open, lab: life.Lab) -> None:
    notebook = opened("01_create_vms.ipynb")
    notebook.run_all()
    notebook.click("Reject")

    expect(notebook.cell("stage.apply(plan)")).to_contain_text("ApprovalNeeded: create-vms: not approved")
    expect(notebook.cell("stage.verify()").locator("table.fluobook")).to_have_count(0)
    assert changes(lab) == []


def test_every_text_of_a_table_can_be_read_in_both_themes(opened: Open) -> None:
    notebook = opened(code=EVERY_TONE)
    notebook.run_all()
    expect(notebook.page.locator(".fluobook-note")).to_contain_text("a note")

    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.theme(theme)
        texts = notebook.page.evaluate(CONTRASTS)
        assert {text["tone"] for text in texts if text["tone"]} == {"ok", "bad", "wait", "short", "fluobook-note"}
        assert [(theme, text) for text in texts if text["contrast"] < READABLE] == []


def changes(lab: life.Lab) -> list[Any]:
    """What was asked of the lab that could change something."""
    return [request for request in life.activity(lab)["requests"] if request["mutating"]]
