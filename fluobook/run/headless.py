"""A headless run: every stage's notebook, one after the other, in one process; leaves a run folder."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import errors
from fluobook.journal import journal as journals
from fluobook.journal.folder import write_json
from fluobook.journal.journal import Journal
from fluobook.journal.summary import StageSummary, as_data, not_run, summarise
from fluobook.redact import Redactor
from fluobook.run.report import write_report
from fluobook.run.signals import Interrupted, Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fluobook.stages.core.stage import Stage

AGAIN = "run it again: every stage looks at what there is, and does only what is missing"


@dataclass(frozen=True)
class Order:
    """What to run.

    Args:
        phase: name of the phase.
        platform: the platform as plain data, when it is not just the phase's file; else empty.
        target: "lab" or "live".
        approve: what is approved beforehand.
        stages: in the order to run.
        root: the repository.
        folder: the run folder.
        lab: state folder of the lab to use, for target lab.
    """

    phase: str
    platform: dict[str, Any]
    target: str
    approve: str
    stages: Sequence[Stage]
    root: Path
    folder: Path
    lab: Path | None = None
    redactor: Redactor = field(default_factory=Redactor)


def notebook_of(stage: Stage) -> str:
    """The file name of a stage's notebook."""
    return f"{stage.number:02d}_{stage.name.replace('-', '_')}.ipynb"


def run(order: Order, *, told: Callable[[StageSummary], None]) -> int:
    """Run the notebooks; stops at the first that fails. Whatever happens, a summary and a report are left.

    Returns:
        The exit code of the whole run, as in `fluobook.errors`.
    """
    signals = Signals()
    done: list[StageSummary] = []
    journal = Journal(order.folder / "events.jsonl", order.redactor)
    journal.write("run-started", phase=order.phase, target=order.target, stages=[stage.name for stage in order.stages])
    with signals.heard(), _surroundings(order):
        for stage in order.stages:
            if signals.caught is None and not any(earlier.exit_code for earlier in done):
                done.append(_one(order, stage, signals, journal))
                told(done[-1])
            else:
                done.append(not_run(stage.name, notebook_of(stage)))
        return _finished(order, done, signals, journal)


def _finished(order: Order, done: Sequence[StageSummary], signals: Signals, journal: Journal) -> int:
    code = signals.exit_code or max((stage.exit_code for stage in done), default=0)
    if signals.caught is not None:
        journal.write("interrupted", signal=signals.name)
    journal.write("run-ended", exit_code=code)
    journal.close()
    head = {"phase": order.phase, "target": order.target, "exit_code": code}
    write_json(order.folder / "summary.json", order.redactor.data(as_data(done, **head)))
    write_report(order.folder, order.redactor)
    return code


def _one(order: Order, stage: Stage, signals: Signals, journal: Journal) -> StageSummary:
    notebook = notebook_of(stage)
    journal.write("notebook-started", stage=stage.name, notebook=notebook)
    began = time.monotonic()
    name, error = _execute(order, notebook, signals)
    seconds = round(time.monotonic() - began, 2)
    # A signal that came as the last cell ended leaves a stage that is done: the run alone was interrupted.
    code = (signals.exit_code or exit_code_of(name)) if name else 0
    status = _status(name, code, signals)
    journal.write("notebook-ended", stage=stage.name, status=status, seconds=seconds, error=error)
    events = journals.read(order.folder / "events.jsonl")
    error = order.redactor.text(error)
    return summarise(stage.name, notebook, events, status=status, seconds=seconds, error=error, exit_code=code)


def _status(name: str, code: int, signals: Signals) -> str:
    if not name:
        return "done"
    if signals.caught is not None:
        return "interrupted"
    return "refused" if code == errors.ApprovalNeeded.exit_code else "failed"


def _execute(order: Order, notebook: str, signals: Signals) -> tuple[str, str]:
    """Execute one notebook; returns the error's class name and text, both empty when it went well."""
    import papermill  # noqa: PLC0415 (papermill is heavy; `fluobook --help` must not pay for it)
    from nbconvert.filters import strip_ansi  # noqa: PLC0415
    from papermill.exceptions import PapermillExecutionError  # noqa: PLC0415

    from fluobook.run.engine import ENGINE  # noqa: PLC0415
    from fluobook.run.output import redacted  # noqa: PLC0415

    parameters: dict[str, Any] = {"phase": order.phase, "target": order.target, "approve": order.approve}
    parameters |= {"platform": order.platform} if order.platform else {}
    try:
        papermill.execute_notebook(
            order.root / "notebooks" / notebook,
            redacted(order.folder / notebook, order.redactor),
            parameters=parameters,
            engine_name=ENGINE,
            progress_bar=False,
            cwd=order.root / "notebooks",
            signals=signals,
        )
    except PapermillExecutionError as error:
        if signals.caught is not None and error.ename == "KeyboardInterrupt":
            return error.ename, f"{signals.name} interrupted {notebook}; {AGAIN}"
        return error.ename, strip_ansi("\n".join(error.traceback) or error.evalue)
    except Interrupted as error:
        return "Interrupted", f"{error} came between two cells; the next one was not begun"
    except Exception as error:  # noqa: BLE001 (kernels die in many ways, and papermill breaks in its own: all end a run)
        return type(
            error
        ).__name__, f"{notebook} ended early: {strip_ansi(str(error)) or type(error).__name__}\n{AGAIN}"
    return "", ""


def exit_code_of(name: str) -> int:
    """The exit code that belongs to an error's class name; 1 for what is not ours, 0 for no error."""
    kind = getattr(errors, name, None) if name else None
    return getattr(kind, "exit_code", 1) if name else 0


@contextmanager
def _surroundings(order: Order) -> Iterator[None]:
    """What kernels find in their environment: the run folder, and the lab of this run."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    before = dict(os.environ)
    os.environ["FLUOBOOK_RUN"] = str(order.folder)
    if order.lab:
        os.environ["FLUOBOOK_LAB"] = str(order.lab)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
