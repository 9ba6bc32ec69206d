"""The HTML report of a run: one file that needs nothing else.

Facts, stages, failures, the timeline, checks; then every executed notebook, folded.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Cell, Table
from fluobook.errors import BadFile
from fluobook.failures.catalogue import catalogue, explain
from fluobook.files import LARGEST_RECORD, parse_json, read_text, remove_partial_files, write_text
from fluobook.journal.chain import NOTEBOOK
from fluobook.journal.history import Performed, moment, performed
from fluobook.journal.journal import StageSummary, Summary, beginning, read_record
from fluobook.redact import Redactor
from fluobook.run.timeline import timelines, waves

if TYPE_CHECKING:
    from nbformat import NotebookNode

STYLE = f"<style>{resources.files(__package__).joinpath('report.css').read_text().rstrip()}</style>"

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may do for the page: a notebook may have been altered, and nothing in one runs or loads a file."""
MOST_TEXT = 10_000
"""Characters of text in one notebook: the time that Markdown takes grows with their square."""

MOST_CODES = 5_000
"""Escape characters in one notebook: the time that colours take grows with their square."""

LONGEST_CELL, MOST_CHECKS = 400, 300
"""Characters of a cell, and checks, that are shown: a journal may have been altered."""

TONES = {"done": "ok", "not run": "same"}

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def write_report(folder: Path, redactor: Redactor) -> Path:
    """Write `report.html` into a run folder from what the run left there; returns its path.

    Reads nothing outside the folder. What is missing or damaged is named in the page.

    Raises:
        BadFile: the folder has neither a summary nor a journal, or the page cannot be written.
    """
    remove_partial_files(folder)
    record = read_record(folder)
    summary, events = record.summary, record.events
    title = f"fluobook · {summary.phase} · {summary.target} · {folder.name}"
    ran = {stage.notebook: stage for stage in summary.stages if stage.status != "not run"}
    page = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{html.escape(title)}</title>{STYLE}',
        f"<h1>{html.escape(title)}</h1>{_facts(summary, events)}{_stages(summary, events)}",
        *(f'<p class="fluobook-note">The record is damaged: {html.escape(problem)}</p>' for problem in record.damage),
        _charts(summary),
        *(_failure(stage) for stage in summary.stages if stage.error),
        _timeline(events),
        _checks(events),
        *(_notebook(folder, stage) for stage in ran.values()),
        "</html>",
    ]
    path = folder / "report.html"
    write_text(path, redactor.text("\n".join(page)))
    return path


def _facts(summary: Summary, events: Sequence[dict[str, Any]]) -> str:
    """Where the run came from, as far as its journal says."""
    begun = beginning(events)
    versions = ", ".join(f"{name} {version}" for name, version in begun.get("versions", {}).items())
    person = "@".join(filter(None, (begun.get("person", ""), begun.get("host", ""))))
    end = f"{summary.journal.lines} lines, the last with SHA-256 {summary.journal.sha256}"
    facts = {
        "cluster": begun.get("cluster", ""),
        "versions": versions,
        "commit": begun.get("commit", ""),
        "params": begun.get("params", ""),
        "fluobook": begun.get("fluobook", ""),
        "run by": person,
        "rehearsal of": _rehearses(summary),
        "journal": end if summary.journal.sha256 else "",
    }
    rows = [[name, _short(text)] for name, text in facts.items() if text]
    return Table("", ["", ""], rows).html() if rows else ""


def _rehearses(summary: Summary) -> str:
    """The live plan that a rehearsal stands for, and how its lab differed."""
    if (plan := summary.rehearses) is None:
        return ""
    live = f"plan {plan.digest}" if plan.digest else "a plan that was refused"
    return "; ".join([f"{live} of {plan.stage} for {plan.cluster}, LIVE, read {plan.at}", *plan.unlike])


def _stages(summary: Summary, events: Sequence[Mapping[str, Any]]) -> str:
    approved = {event.get("stage"): event for event in events if event["event"] == "approved"}
    rows = [
        [
            Cell(stage.status, TONES.get(stage.status, "bad")),
            Cell(stage.stage, link=f"#{stage.notebook.removesuffix('.ipynb')}"),
            *(stage.actions or "0", f"{stage.checks} of {stage.total}", f"{stage.seconds:.1f} s"),
            *(_short(text) for text in _approval(approved.get(stage.stage, {}))),
        ]
        for stage in summary.stages
    ]
    seconds, actions, checks, total = (
        sum(getattr(stage, name) for stage in summary.stages) for name in ("seconds", "actions", "checks", "total")
    )
    at = str(events[0].get("at"))[:19].replace("T", " ") if events else ""
    note = f"{f'began {at} UTC, ' if at else ''}{seconds:.1f} s in all, exit code {summary.exit_code}\n"
    note += f"{actions} actions, {checks} of {total} checks"
    columns = ["status", "stage", "actions", "checks", "time", "plan", "approved"]
    return Table("stages", columns, rows, note=note).html()


def _approval(event: Mapping[str, Any]) -> tuple[str, str]:
    """The digest that was approved, and how and by whom."""
    person = f" by {event['person']}" if event.get("person") else ""
    known = f", {event['rehearsed']}" if event.get("rehearsed") else ""
    return event.get("digest", ""), f"{event['form']}{person}{known}" if event.get("form") else ""


def _short(text: Any) -> str:
    return str(text) if len(str(text)) <= LONGEST_CELL else f"{str(text)[:LONGEST_CELL]}…"


def _failure(stage: StageSummary) -> str:
    """The error of a stage, and what the catalogue of failures says of it."""
    text = ANSI.sub("", stage.error)
    named = re.search(r"^ *failure: +(F\d+) ", text, re.MULTILINE)
    entries = [entry for entry in catalogue() if named and entry.code == named[1]]
    entries = entries or [match.failure for match in explain(text[:MOST_TEXT])][:1]
    known = "".join(f"<p>known failure:</p><pre>{html.escape(entry.text())}</pre>" for entry in entries)
    return f"<h2>{html.escape(stage.stage)} {html.escape(stage.status)}</h2><pre>{html.escape(text)}</pre>{known}"


def _timeline(events: Sequence[Mapping[str, Any]]) -> str:
    """What happened when: the stages, their actions, and the waves of Argo CD."""
    stages: dict[str, list[Performed]] = {}
    for action in performed(events):
        stages.setdefault(action.stage, []).append(action)
    spans: dict[str, tuple[float, float]] = {}
    for event in events:
        at, stage = moment(event), event.get("stage", "")
        if at is not None and stage:
            spans[stage] = (spans.get(stage, (at, at))[0], at)
    if not spans:
        return ""
    legend = "<p>◆ critical path: the chain of actions that determined how long its stage took</p>" if stages else ""
    return f"<h2>Timeline</h2>{legend}{timelines(stages, spans)}{_waves(stages)}"


def _waves(stages: Mapping[str, Sequence[Performed]]) -> str:
    rows = []
    for wave, actions in waves(itertools.chain.from_iterable(stages.values())).items():
        took = max(action.ended or action.began for action in actions) - min(action.began for action in actions)
        names = (f"{action.object.removeprefix('application ')} {action.seconds:.1f} s" for action in actions)
        rows.append([str(wave), f"{took:.1f} s", _short(", ".join(names))])
    columns = ["wave", "took", "Applications, with the time that each took"]
    return Table("Argo CD's waves", columns, rows).html() if rows else ""


def _checks(events: Sequence[Mapping[str, Any]]) -> str:
    """The checks of the last verification of each stage, with what was observed; "…" if the stage needs it not."""
    verified = {event.get("stage", ""): event for event in events if event["event"] == "verified"}
    rows = [
        [
            Cell("", "ok" if check.get("passed") is True else "wait" if event.get("ok") is True else "bad"),
            *(stage, _short(check.get("check", "")), _short(check.get("result", ""))),
        ]
        for stage, event in verified.items()
        for check in (event["checks"] if isinstance(event.get("checks"), list) else ())
        if isinstance(check, dict)
    ]
    table = Table("", ["", "stage", "check", "result"], rows, limit=MOST_CHECKS)
    return f"<h2>Checks</h2>{table.html()}" if rows else ""


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
        parse_json(text, name, strict=False)
        notebook = nbformat.reads(text, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if "parameters" not in cell.metadata.get("tags", ())]
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                output.get("data", {}).pop("text/vnd.mermaid", None)  # only JupyterLab draws it; the text remains
        _require_short(notebook, text, name)
        exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
        body, _ = exporter.from_notebook_node(notebook)  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as error:  # noqa: BLE001 (a damaged notebook fails anywhere in nbformat and nbconvert)
        reason = error.problem if isinstance(error, BadFile) else f"is damaged ({type(error).__name__})"
        body = f"<p>{html.escape(f'The notebook of {stage.stage} cannot be shown: it {reason}.')}</p>"
    heading = html.escape(f"{stage.stage}: {name}")
    unfolded = "" if stage.status == "done" else " open"
    folded = f"<details{unfolded}><summary>{heading}</summary>{body}</details>"
    return f'<section id="{html.escape(name.removesuffix(".ipynb"))}">{folded}</section>'
