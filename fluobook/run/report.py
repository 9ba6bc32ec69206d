"""The HTML report of a run: the summary, then every executed notebook, in one file that needs nothing else."""

from __future__ import annotations

import html
import re
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.display.table import Cell, Table
from fluobook.errors import BadFile
from fluobook.files import LARGEST_RECORD, parse_json, read_text, remove_partial_files, write_text
from fluobook.journal.journal import StageSummary, Summary, read, read_summary
from fluobook.redact import Redactor

if TYPE_CHECKING:
    from nbformat import NotebookNode

STYLE = f"<style>{resources.files(__package__).joinpath('report.css').read_text().rstrip()}</style>"

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may do for the page: a notebook may have been altered, and nothing in one runs or loads a file."""
MOST_TEXT = 10_000
"""Characters of text in one notebook: the time that Markdown takes grows with their square."""

MOST_CODES = 5_000
"""Escape characters in one notebook: the time that colours take grows with their square."""

NOTEBOOK = re.compile(r"\w[\w-]*\.ipynb")
TONES = {"done": "ok", "not run": "same"}

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def write_report(folder: Path, redactor: Redactor) -> Path:
    """Write `report.html` into a run folder from what the run left there; returns its path.

    Reads nothing outside the folder. What is missing or damaged is named in the page.

    Raises:
        BadFile: the folder has neither a summary nor a journal, or the page cannot be written.
    """
    remove_partial_files(folder)
    summary = read_summary(folder)
    title = f"fluobook · {summary.phase} · {summary.target} · {folder.name}"
    shown = {stage.notebook: stage for stage in summary.stages if stage.status != "not run"}
    page = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{html.escape(title)}</title>{STYLE}',
        _head(title, summary, _began(folder)),
        *(_notebook(folder, stage) for stage in shown.values()),
        "</html>",
    ]
    path = folder / "report.html"
    write_text(path, redactor.text("\n".join(page)))
    return path


def _began(folder: Path) -> str:
    """When the run began, from its journal; "" if there is none."""
    with suppress(BadFile):
        events = read(folder / "events.jsonl")
        return f"began {str(events[0].get('at'))[:19].replace('T', ' ')} UTC, " if events else ""
    return ""


def _head(title: str, summary: Summary, began: str) -> str:
    rows = [
        [
            Cell(stage.status, TONES.get(stage.status, "bad")),
            Cell(stage.stage, link=f"#{stage.notebook.removesuffix('.ipynb')}"),
            stage.actions,
            f"{stage.checks} of {stage.total}",
            f"{stage.seconds:.1f} s",
        ]
        for stage in summary.stages
    ]
    seconds, actions, checks, total = (
        sum(getattr(stage, name) for stage in summary.stages) for name in ("seconds", "actions", "checks", "total")
    )
    note = f"{began}{seconds:.1f} s in all, exit code {summary.exit_code}\n"
    note += f"{actions} actions, {checks} of {total} checks"
    table = Table("stages", ["status", "stage", "actions", "checks", "time"], rows, note=note)
    errors = "".join(f"<pre>{html.escape(ANSI.sub('', s.error))}</pre>" for s in summary.stages if s.error)
    return f"<h1>{html.escape(title)}</h1>{table.html()}{_charts(summary)}{errors}"


def _charts(summary: Summary) -> str:
    """What served each chart in the lab; one line where all were stand-ins."""
    if summary.charts in ("", "stand-ins"):
        return "<p>charts: the lab's stand-ins</p>" if summary.charts else ""
    rows = [
        [
            Cell(source.get("used", ""), "ok" if source.get("used") == "real" else "bad"),
            source.get("chart") or source.get("repository", ""),
            *(source.get(name, "") for name in ("version", "digest", "cause")),
        ]
        for source in summary.sources
    ]
    return Table(f"charts from {summary.charts}", ["used", "chart", "version", "digest", "why"], rows).html()


def _require_short(notebook: NotebookNode, text: str, name: str) -> None:
    if text.count("\\u001b") > MOST_CODES:
        raise BadFile(name, f"has more than {MOST_CODES} escape characters", remedy="restore it")
    if sum(len(cell.source) for cell in notebook.cells if cell.cell_type == "markdown") > MOST_TEXT:
        raise BadFile(name, f"has more than {MOST_TEXT} characters of text", remedy="restore it")


def _notebook(folder: Path, stage: StageSummary) -> str:
    """A notebook's body, with the parameters it ran with and not those that it would have without any."""
    import nbformat  # noqa: PLC0415 (heavy; only a report needs it)
    from nbconvert import HTMLExporter  # noqa: PLC0415

    name = stage.notebook if NOTEBOOK.fullmatch(stage.notebook) else "no notebook of the run"
    try:
        text = read_text(folder / name, largest=LARGEST_RECORD, follow=False)
        parse_json(text, name)
        notebook = nbformat.reads(text, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if "parameters" not in cell.metadata.get("tags", ())]
        _require_short(notebook, text, name)
        exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
        body, _ = exporter.from_notebook_node(notebook)  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as error:  # noqa: BLE001 (a damaged notebook fails anywhere in nbformat and nbconvert)
        reason = error.problem if isinstance(error, BadFile) else f"is damaged ({type(error).__name__})"
        body = f"<p>{html.escape(f'The notebook of {stage.stage} cannot be shown: it {reason}.')}</p>"
    return f'<section id="{html.escape(name.removesuffix(".ipynb"))}">{body}</section>'
