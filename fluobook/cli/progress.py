"""The progress of a headless run on a terminal: a bar for the stage, and a line for each action that runs.

It is read from the journal of the run, which the kernels write. Without a terminal there are only the lines that the
stages print when they end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import BadFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fluobook.journal.durations import Kind, StageState
    from fluobook.journal.journal import StageSummary

LINES = 10
"""Running actions that are shown; more are counted."""
REFRESHES = 2
"""How often it is drawn in a second."""


@contextmanager
def shown(
    folder: Path, runs: Sequence[Path], conditions: Mapping[str, Any], report: Callable[[StageSummary], None]
) -> Iterator[Callable[[StageSummary], None]]:
    """Show the progress while the block lasts; yields what receives the summaries of the stages.

    Args:
        folder: the run folder.
        runs: the folders of earlier runs, the newest first.
        conditions: what makes the durations of runs comparable; see `fluobook.journal.durations`.
        report: prints a summary.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        yield report
        return
    from rich.live import Live

    from fluobook.journal.durations import comparable, state_of, usual
    from fluobook.journal.journal import read

    expected, journal = usual(comparable(runs, conditions)), folder / "events.jsonl"

    def drawn() -> RenderableType:
        with suppress(BadFile, OSError):
            if state := state_of(read(journal)):
                return _drawn(state, expected, time.time())
        return ""

    live = Live(get_renderable=drawn, refresh_per_second=REFRESHES, transient=True, redirect_stderr=False)

    def between(summary: StageSummary) -> None:
        live.stop()
        report(summary)
        live.start()

    with live:
        yield between


def _drawn(state: StageState, expected: Mapping[Kind, float], now: float) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    title, *running = lines(state, expected, now)
    rows = Table.grid()
    rows.add_row(Text(title))
    rows.add_row(ProgressBar(total=state.total or None, completed=state.done, width=40))
    for line in running:
        rows.add_row(Text(line, overflow="ellipsis", no_wrap=True))
    return rows


def lines(state: StageState, expected: Mapping[Kind, float], now: float) -> list[str]:
    """The progress of a stage as text: its count, then the actions that run with what is known about their times."""
    from fluobook.journal.durations import time_text

    count = f"{state.done} of {state.total} done" if state.total else "reading the live systems"
    running = [
        f"  {name}: {time_text(now - action.at, expected.get(action.kind), action.limit)}"
        for name, action in state.running.items()
    ]
    more = [f"  + {len(running) - LINES} more"] if len(running) > LINES else []
    return [f"{state.stage}: {count}", *running[:LINES], *more]


def print_summary(summary: StageSummary) -> None:
    """Print the summary of a stage that has ended."""
    with suppress(BrokenPipeError):  # the reader of the output is gone; the run goes on
        print(summary.line(), flush=True)
        if summary.error:
            print(summary.error, file=sys.stderr)
