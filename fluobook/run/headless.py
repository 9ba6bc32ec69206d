"""A headless run: executes the stages' notebooks one after the other and leaves a run folder."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fluobook import errors
from fluobook.environment import inherited
from fluobook.errors import BadFile, FluobookError
from fluobook.failures import present
from fluobook.files import write_json
from fluobook.journal import chain
from fluobook.journal import journal as journals
from fluobook.journal.journal import Journal, StageSummary, summarise
from fluobook.params import home
from fluobook.params.load import RECORD
from fluobook.redact import Redactor
from fluobook.run.kernels import KernelTemplate
from fluobook.run.report import write_report
from fluobook.run.signals import Interrupted, Signals
from fluobook.stages.core.stage import Stage

AGAIN = "run it again: every stage reads the live systems and does only what is missing"


@dataclass(frozen=True)
class RunRequest:
    """What to run.

    Args:
        phase: name of the phase.
        platform: the platform as plain data; every notebook gets this one, whatever becomes of the phase's file.
        target: "lab" or "live".
        approve: what is approved in advance.
        stages: in the order in which they run.
        root: the repository.
        folder: the run folder.
        lab: state folder of the lab to use, for target lab.
        variables: the environment variables with secrets that the stages need.
        facts: what the record says of the run; see `fluobook.context.beginning_of`.
    """

    phase: str
    platform: dict[str, Any]
    target: str
    approve: str
    stages: Sequence[Stage]
    root: Path
    folder: Path
    lab: Path | None = None
    variables: Sequence[str] = ()
    redactor: Redactor = field(default_factory=Redactor)
    facts: Mapping[str, Any] = field(default_factory=dict)


class RunJournal(Journal):
    """A journal that cannot end the run: `failure` is the first error, such as a full disk."""

    failure: BadFile | None = None

    def write(self, event: str, **fields: Any) -> None:
        """As in `Journal`, but without raising."""
        try:
            super().write(event, **fields)
        except BadFile as error:
            self.failure = self.failure or error


def run(request: RunRequest, *, template: KernelTemplate | None = None, report: Callable[[StageSummary], None]) -> int:
    """Run the notebooks; stops at the first that fails. A summary and a report are written in every case.

    Args:
        request: what to run.
        template: forks the kernels; may still be starting.
        report: receives the summary of each stage that ran.

    Returns:
        The exit code of the whole run, as in `fluobook.errors`.
    """
    signals = Signals()
    done: list[StageSummary] = []
    journal = RunJournal(request.folder / "events.jsonl", request.redactor)
    stages = [stage.name for stage in request.stages]
    begun = {"phase": request.phase, "target": request.target, "stages": stages, **request.facts}
    journal.write("run-started", **begun)
    if request.platform:
        write_json(request.folder / RECORD, {"phase": request.phase, "platform": request.platform})
    with signals.handled(), _environment(request):
        for stage in request.stages:
            if signals.caught is None and not any(earlier.exit_code for earlier in done):
                done.append(_run_stage(request, stage, signals, journal, template))
                report(done[-1])
            else:
                done.append(StageSummary(stage.name, stage.notebook))
        return _finish(request, done, signals, journal)


def _finish(request: RunRequest, done: Sequence[StageSummary], signals: Signals, journal: RunJournal) -> int:
    code = signals.exit_code or max((stage.exit_code for stage in done), default=0)
    if signals.caught is not None:
        journal.write("interrupted", signal=signals.name)
    journal.write("run-ended", exit_code=code)
    journal.close()
    summary = {"phase": request.phase, "target": request.target, "exit_code": code, "stages": list(map(asdict, done))}
    summary |= {name: request.facts[name] for name in journals.FACTS if name in request.facts}
    with suppress(BadFile):
        summary["journal"] = asdict(chain.head(request.folder / "events.jsonl"))
    path = _write_summary(request.folder, request.redactor.data(summary))
    if path.parent == request.folder:
        write_report(request.folder, request.redactor)
    if journal.failure:
        journal.failure.cause = f"the summary of the run is {path}"
        raise journal.failure
    return code


def _write_summary(folder: Path, summary: Any) -> Path:
    """Write the summary into the run folder, or where there is room; returns its path.

    Raises:
        BadFile: there is no room anywhere.
    """
    places = [folder / "summary.json", home() / f"{folder.name}-summary.json"]
    places.append(Path(tempfile.gettempdir()) / f"{folder.name}-summary.json")
    for path in places[:-1]:
        with suppress(BadFile):
            write_json(path, summary)
            return path
    write_json(places[-1], summary)
    return places[-1]


def _run_stage(
    request: RunRequest, stage: Stage, signals: Signals, journal: RunJournal, template: KernelTemplate | None
) -> StageSummary:
    notebook = stage.notebook
    journal.write("notebook-started", stage=stage.name, notebook=notebook)
    started = time.monotonic()
    name, error = _execute(request, notebook, signals, template)
    seconds = round(time.monotonic() - started, 2)
    # A signal that came as the last cell ended interrupts the run, not the stage, which is done.
    code = (signals.exit_code or exit_code_of(name)) if name else 0
    status = _status(name, code, signals)
    ended = {"notebook": notebook, "status": status, "seconds": seconds, "error": error}
    with suppress(BadFile):
        ended["sha256"] = chain.notebook_hash(request.folder / notebook)
    journal.write("notebook-ended", stage=stage.name, **ended)
    events = journals.read(request.folder / "events.jsonl")
    error = request.redactor.text(error)
    return summarise(stage.name, notebook, events, status=status, seconds=seconds, error=error, exit_code=code)


def _status(name: str, code: int, signals: Signals) -> str:
    if not name:
        return "done"
    if signals.caught is not None:
        return "interrupted"
    return "refused" if code == errors.ApprovalNeeded.exit_code else "failed"


def _execute(request: RunRequest, notebook: str, signals: Signals, template: KernelTemplate | None) -> tuple[str, str]:
    """Execute one notebook; returns the error's class name and text, both empty on success."""
    import papermill  # noqa: PLC0415 (papermill is heavy; `fluobook --help` must not pay for it)
    from nbconvert.filters import strip_ansi  # noqa: PLC0415

    from fluobook.run.engine import ENGINE, redacted  # noqa: PLC0415

    parameters: dict[str, Any] = {"phase": request.phase, "target": request.target, "approve": request.approve}
    try:
        papermill.execute_notebook(
            request.root / "notebooks" / notebook,
            redacted(request.folder / notebook, request.redactor),
            parameters=parameters,
            engine_name=ENGINE,
            progress_bar=False,
            cwd=request.root / "notebooks",
            signals=signals,
            template=template,
        )
    except Interrupted as error:
        return "Interrupted", f"{error} came between two cells; the next one was not started"
    except Exception as error:  # noqa: BLE001 (kernels end in many ways, and papermill breaks in its own: all end a run)
        name = str(getattr(error, "ename", type(error).__name__))
        if signals.caught is not None and name in ("KeyboardInterrupt", "DeadKernelError"):
            return name, f"{signals.name} interrupted {notebook}; {AGAIN}"
        message = strip_ansi(str(getattr(error, "evalue", error)))
        platform = errors.in_commands(request.phase, request.target)
        shown = strip_ansi("\n".join(getattr(error, "traceback", ()))) or f"{notebook} ended early: {message or name}"
        if not hasattr(errors, name):  # the kernel has explained those of fluobook
            shown += "\n" + present(FluobookError(message, remedy=AGAIN), phase=platform).text().partition("\n")[2]
        return name, shown
    return "", ""


def exit_code_of(name: str) -> int:
    """The exit code of an error, by its class name: 1 for an error that is not fluobook's, 0 for none."""
    kind = getattr(errors, name, None) if name else None
    return getattr(kind, "exit_code", 1) if name else 0


@contextmanager
def _environment(request: RunRequest) -> Iterator[None]:
    """The environment of the kernels: it names the run folder and the lab of this run."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(inherited(request.variables, environment=before))
    os.environ["FLUOBOOK_RUN"] = str(request.folder)
    if request.lab:
        os.environ["FLUOBOOK_LAB"] = str(request.lab)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
