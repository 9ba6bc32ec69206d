"""The HTML report of a run: the summary, then every executed notebook, in one file that needs nothing else."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.display.table import Cell, Table
from fluobook.files import write_text
from fluobook.journal.journal import read

if TYPE_CHECKING:
    from fluobook.redact import Redactor

STYLE = """<style>:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.7em;margin:.8em 0 .4em}h2{font-size:1.25em;margin:1.2em 0 .3em}
pre{background:color-mix(in srgb,currentColor 7%,transparent);padding:.6em .8em;border-radius:4px;
font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere}
.fluobook th,.fluobook td{padding:4px 20px 4px 0!important}
section{border-top:1px solid #8884;margin-top:2em}
section:target{border-top:3px solid currentColor}a{color:inherit}
.prompt,.jp-InputPrompt,.jp-OutputPrompt,.anchor-link{display:none}</style>"""

TONES = {"done": "ok", "not run": "same"}

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def write_report(folder: Path, redactor: Redactor) -> Path:
    """Write `report.html` into a run folder from what the run left there; returns its path."""
    summary = json.loads((folder / "summary.json").read_text())
    title = f"fluobook · {summary['phase']} · {summary['target']} · {folder.name}"
    bodies = [
        _notebook(folder / stage["notebook"]) for stage in summary["stages"] if (folder / stage["notebook"]).exists()
    ]
    page = "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>{STYLE}',
            _head(title, summary, _began(folder)),
            *bodies,
            "</html>",
        ]
    )
    path = folder / "report.html"
    write_text(path, redactor.text(page))
    return path


def _began(folder: Path) -> str:
    """When the run began, from its journal; "" if there is none."""
    journal = folder / "events.jsonl"
    events = read(journal) if journal.exists() else []
    return f"began {events[0]['at'][:19].replace('T', ' ')} UTC, " if events else ""


def _head(title: str, summary: dict[str, object], began: str) -> str:
    stages = summary["stages"]
    assert isinstance(stages, list)  # noqa: S101 (narrowing for the type checker)
    rows = [
        [
            Cell(s["status"], TONES.get(s["status"], "bad")),
            Cell(s["stage"], link=f"#{s['notebook'].removesuffix('.ipynb')}"),
            s["actions"],
            f"{s['checks']} of {s['total']}",
            f"{s['seconds']:.1f} s",
        ]
        for s in stages
    ]
    seconds = sum(s["seconds"] for s in stages)
    actions, checks, total = (sum(s[what] for s in stages) for what in ("actions", "checks", "total"))
    note = f"{began}{seconds:.1f} s in all, exit code {summary['exit_code']}\n"
    note += f"{actions} actions, {checks} of {total} checks"
    table = Table("stages", ["status", "stage", "actions", "checks", "time"], rows, note=note)
    errors = "".join(f"<pre>{html.escape(ANSI.sub('', s['error']))}</pre>" for s in stages if s["error"])
    return f"<h1>{html.escape(title)}</h1>{table.html()}{errors}"


def _notebook(path: Path) -> str:
    """A notebook's body, with the parameters it ran with and not those that it would have without any."""
    import nbformat  # noqa: PLC0415 (heavy; only a report needs it)
    from nbconvert import HTMLExporter  # noqa: PLC0415

    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "parameters" not in cell.metadata.get("tags", ())]
    body, _ = exporter.from_notebook_node(notebook)  # type: ignore[no-untyped-call, unused-ignore]
    return f'<section id="{path.stem}">{body}</section>'
