"""The board: each stage with its state from the live systems, its last run, and a link to its notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluobook.context import RunContext
from fluobook.display.table import Cell, Table
from fluobook.errors import BadFile, FluobookError
from fluobook.journal.journal import read
from fluobook.stages.catalogue import DAY_TWO, STAGES
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.stage import Stage

SEARCHED = 100
"""How many of the newest run folders are searched for the last run of each stage."""

_TONES = {"done": "ok", "failed": "bad", "refused": "wait", "interrupted": "bad"}


@dataclass(frozen=True)
class LastRun:
    """How a stage ended the last time: status, when (UTC, ISO 8601), seconds of work, and the error as it was shown."""

    status: str
    at: str
    seconds: float
    error: str = ""


def last_runs(folders: Sequence[Path], phase: str, target: str) -> dict[str, LastRun]:
    """The last run of each stage of a phase on a target; the newest folder comes first."""
    runs: dict[str, LastRun] = {}
    for folder in folders[:SEARCHED]:
        with suppress(BadFile):
            for stage, run in _ended(read(folder / "events.jsonl"), phase, target).items():
                runs.setdefault(stage, run)
    return runs


def _ended(events: Sequence[Mapping[str, Any]], phase: str, target: str) -> dict[str, LastRun]:
    """How each stage ended in one journal; nothing if it is of another phase or target."""
    if not events or (events[0].get("phase"), events[0].get("target")) != (phase, target):
        return {}
    return {
        str(event.get("stage")): LastRun(
            str(event.get("status")), str(event.get("at")), float(event["seconds"]), str(event.get("error") or "")
        )
        for event in events
        if event["event"] == "notebook-ended" and isinstance(event.get("seconds"), int | float)
    }


def state_of(plan: Plan) -> Cell:
    """The state of a stage, from its own plan."""
    if plan.waits_for:
        return Cell(f"waits for {plan.waits_for}", "wait")
    if plan.actions and all(action.destroys for action in plan.actions):
        return Cell("only on demand", "same")
    if plan.actions:
        return Cell("1 action" if len(plan.actions) == 1 else f"{len(plan.actions)} actions", "change")
    return Cell("nothing to do", "ok") if plan.kept else Cell("only checks", "same")


def read_state(stage: Stage, context: RunContext) -> Cell:
    """The state of a stage from the live systems, or why it is unknown."""
    try:
        return state_of(stage.plan(context.platform, stage.observe(context.limited_to(stage.uses))))
    except Exception as error:  # noqa: BLE001 (whatever one stage meets must not hide the states of the others)
        message = error.message if isinstance(error, FluobookError) else f"{type(error).__name__}: {error}"
        return Cell(f"✗ unknown: {message}")


def board_table(title: str, states: Mapping[str, Cell], runs: Mapping[str, LastRun]) -> Table:
    """The board: what is not known yet is shown as such."""
    stages = (*STAGES, *DAY_TWO)
    rows: list[list[Any]] = [
        [
            Cell(f"{stage.label} {stage.name}", link=stage.notebook),
            states.get(stage.name, Cell("reading", "wait")),
            *_last(runs.get(stage.name)),
        ]
        for stage in stages
    ]
    rows.append([Cell("11 check", link="11_check.ipynb"), Cell("only checks", "same"), "", "", ""])
    unknown = sum(stage.name not in states for stage in stages)
    note = f"{unknown} of {len(stages)} states are not known yet" if unknown else ""
    return Table(title, ["stage", "state now", "last run", "ended", "took"], rows, note=note)


def _last(run: LastRun | None) -> list[Any]:
    if run is None:
        return ["never", "", ""]
    status = Cell(run.status, _TONES.get(run.status, ""))
    return [status, f"{run.at[:16].replace('T', ' ')} UTC", f"{run.seconds:.1f} s"]
