"""`fluobook charts pull|diff`: the real charts for the lab."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Annotated, Any

import typer

from fluobook import lab as labs
from fluobook.cli.options import Charts, Phase, Settings, chosen, root
from fluobook.display.table import Cell, Table
from fluobook.errors import EXIT_CHANGES_PENDING

app = typer.Typer(
    help="The real charts of the platform tree, for the lab.", no_args_is_help=True, rich_markup_mode=None
)
SHOWN = 80
"""Characters of a path or value in the table of differences; `--json` has all of it."""


@app.command()
def pull(phase: Phase = "phase1", settings: Settings = []) -> None:
    """Fetch and keep the charts and git repositories of the tree. Example: fluobook charts pull phase1."""
    folder, kept = labs.provider().pull_charts(chosen(phase, settings), root=root(), programs=labs.programs())
    rows = [
        [
            Cell(item.state, "bad" if item.cause else "ok" if item.state == "cached" else "add"),
            *(item.chart or "git", item.version, item.url, item.digest[:12]),
            f"{item.size / 1024:.0f} KiB" if item.size else "",
        ]
        for item in kept
    ]
    print(Table(f"kept in {folder}", ["state", "chart", "version", "from", "digest", "size"], rows).text())
    lacking = [item for item in kept if item.cause]
    for item in lacking:
        print(f"{item.chart or item.url} {item.version}: {item.cause}", file=sys.stderr)
    if lacking:
        raise typer.Exit(1)


@app.command()
def diff(
    phase: Phase = "phase1",
    settings: Settings = [],
    charts: Charts = "upstream",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Compare stand-ins with the real charts; exits 2 if they differ. Example: fluobook charts diff phase1."""
    from fluobook import gitops

    loaded = chosen(phase, settings)
    platform = loaded.platform.model_copy(update={"gitops": loaded.platform.gitops.model_copy(update={"mirrors": {}})})
    tree = gitops.for_phase(platform, gitops.of(platform, root()))
    applications = [app.document.data for app in tree.applications if not tree.is_ours(app)]
    differences, lacking = labs.provider().diff_charts(
        loaded, applications, charts=charts, root=root(), programs=labs.programs()
    )
    if as_json:
        print(
            json.dumps(
                {"differences": [vars(difference) for difference in differences], "not compared": lacking}, indent=2
            )
        )
    else:
        rows = [[d.application, d.object, *map(_short, (d.path, d.standin, d.real))] for d in differences]
        title, columns = f"stand-ins and real charts, {charts}", ["Application", "object", "what", "stand-in", "real"]
        print(
            Table(
                title, columns, rows, note=f"{len(rows)} difference{'' if len(rows) == 1 else 's'}", limit=len(rows)
            ).text()
        )
    for name, cause in lacking.items():
        print(f"{name}: not compared, because {cause}", file=sys.stderr)
    if differences or lacking:
        raise typer.Exit(EXIT_CHANGES_PENDING if differences else 1)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= SHOWN else f"{text[: SHOWN - len(digest) - 2]}… {digest}"
