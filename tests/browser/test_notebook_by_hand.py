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
    const tables = area.querySelectorAll('.fluobook-grid, table.fluobook');
    if (!tables.length) return;
    const rows = [...tables[0].querySelectorAll('.fluobook-body [role=row], tbody tr')]
      .map(row => row.children[0].innerText.replace(/\\s+/g, ' ').trim());
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


DESTROYS = """
from fluobook.context import POLICIES
from fluobook.notebook import ask_person
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.core.plan import Action, Plan
plan = Plan("secrets", (Action("x", "unlist", "generator", destroys=("mail", "db-1")),), notes=("keep a copy",))
answer = Gate(Approval(), POLICIES["live"], "fluodata", ask_person).admit(plan)
print(f"{answer.form}: {answer.text}")
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
    frames = [frame for frame in notebook.page.evaluate("window.frames_seen") if frame["rows"]]
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


def test_a_plan_that_destroys_is_approved_by_the_names_that_are_typed(opened: Open) -> None:
    notebook = opened(code=DESTROYS)
    notebook.run_all()
    area, typed = notebook.cell("ask_person").locator(".jp-OutputArea").first, notebook.page.get_by_placeholder("fluo")
    for text in ("WILL BE DESTROYED", "− mail", "− db-1", "keep a copy", "To approve, type: fluodata mail db-1"):
        expect(area).to_contain_text(text)
    typed.fill("fluodata")
    notebook.click("Approve")
    expect(area).to_contain_text("'fluodata' does not match.")
    typed.fill("db-1, mail fluodata")
    notebook.click("Approve")
    expect(area).to_contain_text("plan of secrets: approved")
    expect(area).to_contain_text("button: db-1, mail fluodata")


def test_every_text_of_a_table_can_be_read_in_both_themes(opened: Open) -> None:
    notebook = opened(code=EVERY_TONE)
    notebook.run_all()
    expect(notebook.page.locator(".fluobook-note")).to_contain_text("a note")

    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.theme(theme)
        texts = notebook.page.evaluate(CONTRASTS)
        assert {text["tone"] for text in texts if text["tone"]} == {"ok", "bad", "wait", "short", "fluobook-note"}
        assert [(theme, text) for text in texts if text["contrast"] < READABLE] == []


LIVE = """
from fluobook.display.kernel import guard_kernel
from fluobook.display.live import Live
from fluobook.display.table import Cell, Table
from fluobook.redact import Redactor

redactor = Redactor()
redactor.add("hunter2-secret")
guard_kernel(redactor, "phase1")
values = {f"row-{n}": n for n in range(5000)}
options = dict(key=("name",), sort=("-value",), pickers=("state",), optional=("text",))
columns = ["name", "state", "value", "text"]

def render():
    kinds = Cell("even", "ok"), Cell("odd", "wait")
    rows = [[name, kinds[value % 2], value, "hunter2-secret"] for name, value in values.items()]
    return Table("things", columns, rows, **options)

live = Live(render)
live
"""


def test_a_live_table_is_sorted_filtered_and_changed_while_the_kernel_is_free(opened: Open) -> None:
    notebook = opened(code=LIVE)
    page = notebook.page
    notebook.run_all()
    grid, body = page.locator(".fluobook-grid"), page.locator(".fluobook-body")
    expect(body.locator("[role=row]").first).to_contain_text("row-4999")
    assert body.locator("[role=row]").count() < 100, "only rows that can be seen are drawn"
    expect(body).to_contain_text("‹redacted›")
    assert "hunter2" not in body.inner_text()
    expect(grid).to_have_attribute("aria-rowcount", "5001")

    header = page.get_by_role("columnheader", name="value")
    expect(header).to_have_attribute("aria-sort", "descending")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(body.locator("[role=row]").first).to_contain_text("row-0")
    page.get_by_label("state", exact=True).select_option("… odd")
    page.get_by_label("filter rows").fill("row-49 odd")
    expect(page.locator(".fluobook-count")).to_have_text("56 of 5000 rows")

    grid.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(page.locator(".fluobook-details")).to_contain_text("row-4999")
    scrolled = grid.evaluate("grid => grid.scrollTop")
    assert scrolled > 0
    execute(page, "values['row-4999'] = 99999; values['row-4901'] = 100001; live.touch()")
    expect(page.locator(".fluobook-details")).to_contain_text("99999")
    assert grid.evaluate("grid => grid.scrollTop") == scrolled
    expect(body.locator("[aria-selected=true]")).to_contain_text("row-4999")

    page.get_by_role("button", name="Pause").click()
    execute(page, "del values['row-4999']; live.touch()")
    expect(body.locator("[aria-selected=true]")).to_contain_text("row-4999")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".fluobook-count")).to_have_text("55 of 4999 rows")

    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    expect(page.locator(".fluobook-count")).to_have_text("4999 rows")
    execute(page, "values.clear(); live.touch()")
    expect(page.locator(".fluobook-count")).to_have_text("0 rows")
    execute(page, "live.close()")
    expect(page.locator(".fluobook-live .fluobook-note")).to_have_text("closed")


def execute(page: Any, code: str) -> None:
    """Execute code in the notebook's kernel, beside its cells."""
    page.evaluate(
        "code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done", code
    )


def changes(lab: life.Lab) -> list[Any]:
    """What was asked of the lab that could change something."""
    return [request for request in life.activity(lab)["requests"] if request["mutating"]]
