"""The history: what the record of a run says of the run and of its actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fluobook.errors import BadFile
from fluobook.journal.journal import Record, Summary, beginning, read_record


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
