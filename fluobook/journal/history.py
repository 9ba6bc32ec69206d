"""The history: what the record of a run says of the run and of its actions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fluobook.errors import BadFile
from fluobook.failures.presentation import Presentation
from fluobook.journal.journal import Record, Summary, beginning, read_record, read_summary


@dataclass(frozen=True)
class Performed:
    """An action as a run performed it.

    `began` and `ended` are seconds since the epoch; `ended` is None if the journal has no outcome. `needs` are ids of
    actions of the same stage. `result` is done, failed, or empty without an outcome; `evidence` is what it returned.
    """

    stage: str
    action: str
    verb: str
    object: str
    began: float
    ended: float | None = None
    result: str = ""
    error: str = ""
    needs: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def seconds(self) -> float:
        """How long it took; 0 without an outcome."""
        return max(self.ended - self.began, 0.0) if self.ended is not None else 0.0


def moment(event: Mapping[str, Any]) -> float | None:
    """When an event was written, in seconds since the epoch; None if the journal does not say."""
    try:
        return datetime.fromisoformat(event["at"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def performed(events: Iterable[Mapping[str, Any]]) -> list[Performed]:
    """The actions of a journal, in the order in which they began; one that was performed twice is there twice."""
    actions: list[Performed] = []
    running: dict[tuple[str, str], int] = {}
    for event in events:
        key, at = (str(event.get("stage", "")), str(event.get("action", ""))), moment(event)
        if at is None or event["event"] not in ("intent", "outcome"):
            continue
        if event["event"] == "intent":
            running[key] = len(actions)
            needs = tuple(event.get("needs", ()))
            actions.append(Performed(*key, event.get("verb", ""), event.get("object", ""), at, needs=needs))
        elif key in running:
            begun = actions[running[key]]
            result, error = event.get("result", ""), event.get("error", "")
            evidence = event["evidence"] if isinstance(event.get("evidence"), dict) else {}
            fields = {"ended": at, "result": result, "error": error, "evidence": evidence}
            actions[running.pop(key)] = Performed(**{**vars(begun), **fields})
    return actions


@dataclass(frozen=True)
class Run:
    """A run as the history lists it.

    `run` is the name of its folder, `started` is in UTC (ISO 8601), `seconds` is the time of its stages; `outcome` says
    where it stopped, and `problem` what of its record is damaged or cannot be read.
    """

    run: str
    phase: str = ""
    target: str = ""
    started: str = ""
    seconds: float = 0.0
    outcome: str = ""
    exit_code: int | None = None
    charts: str = ""
    commit: str = ""
    problem: str = ""


def run_of(folder: Path) -> Run:
    """A run, from the summary and the journal in its folder."""
    try:
        return listed(folder.name, read_record(folder))
    except BadFile as error:
        return Run(folder.name, outcome="unknown", problem=error.message)


def listed(name: str, record: Record) -> Run:
    """A run of that name, from its record."""
    summary, begun = record.summary, beginning(record.events)
    ended = not record.events or any(event["event"] == "run-ended" for event in record.events)
    return Run(
        name,
        summary.phase,
        summary.target,
        begun.get("at", ""),
        round(sum(stage.seconds for stage in summary.stages), 2),
        _outcome(summary, ended=ended),
        summary.exit_code if ended else None,
        summary.charts,
        begun.get("commit", ""),
        "; ".join(record.damage),
    )


def _outcome(summary: Summary, *, ended: bool) -> str:
    stopped = next((s for s in summary.stages if s.status in ("failed", "refused", "interrupted")), None)
    if stopped:
        return f"{stopped.status} in {stopped.stage}"
    return "not ended" if not ended else "done" if summary.exit_code == 0 else "failed"


REHEARSALS = 200
"""How many of the newest runs are searched for rehearsals."""


def rehearsals(folders: Iterable[Path], cluster: str, stage: str) -> list[Summary]:
    """The runs that rehearsed a stage in a lab like a live cluster, in the order of the folders; no damaged ones."""
    summaries = [read_summary(folder)[0] for folder in itertools.islice(folders, REHEARSALS)]
    of_stage = [summary for summary in summaries if summary and summary.rehearses and summary.stages]
    return [s for s in of_stage if s.rehearses and (s.rehearses.cluster, s.rehearses.stage) == (cluster, stage)]


def rehearsal_note(rehearsals: Iterable[Summary], digest: str, now: datetime) -> str:
    """What a person should know of the rehearsals of a plan before approving it.

    Args:
        rehearsals: the rehearsals of its stage, the newest first.
        digest: the plan's.
        now: the time.
    """
    newest = list(rehearsals)
    done = next((each for each in newest if each.rehearses and each.rehearses.digest == digest), None)
    if done is None or done.rehearses is None:
        other = newest[0].rehearses if newest else None
        return "not rehearsed" + (
            f"; {_ago(other.at, now)} another plan was, {other.digest or 'refused'}" if other else ""
        )
    stage = done.stages[0]
    outcome = "passed" if stage.status == "done" else stage.status
    error = Presentation.read(stage.error)
    why = f": {'; '.join([error.message, *error.causes[:1]])}" if stage.error else ""
    unlike = f"; the lab was unlike: {'; '.join(done.rehearses.unlike)}" if done.rehearses.unlike else ""
    return f"rehearsed {_ago(done.rehearses.at, now)} in the lab, {outcome}, {stage.seconds:.0f} s{why}{unlike}"


_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def _ago(at: str, now: datetime) -> str:
    """How long ago a time was, in the largest unit of which there are two or more."""
    passed = max(int(now.timestamp() - (moment({"at": at}) or 0)), 0)
    size, unit = next(((size, unit) for size, unit in _UNITS if passed >= 2 * size), (1, "second"))
    return f"{passed // size} {unit}s ago"
