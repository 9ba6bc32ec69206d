"""The journal of a run, one JSON line per event, and the summary that is computed from it.

The journal is evidence, never memory: no stage reads an old journal. Every line passes the redactor.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fluobook.clients.answers import mismatch
from fluobook.errors import BadFile
from fluobook.files import LARGEST_RECORD, parse_json, read_text, unwritable
from fluobook.journal import chain
from fluobook.journal.chain import FIELD, ChainedFile, Head
from fluobook.params.problems import shown
from fluobook.redact import Redactor


def now() -> str:
    """The current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends events to `events.jsonl`; each line is flushed and synced before `write` returns.

    Args:
        path: the file, or None to keep events in memory only (a notebook outside a run).
        redactor: masks secrets in every line.
        clock: returns the time stamp of a line.
    """

    def __init__(self, path: Path | None, redactor: Redactor, *, clock: Callable[[], str] = now) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._redactor = redactor
        self._clock = clock
        self._lock = threading.Lock()
        self._file = ChainedFile(path) if path else None

    def keep(self, path: Path, event: str, **fields: Any) -> None:
        """Keep the events in a file from now on: a first event, those so far, and all that follow."""
        earlier, self.events = self.events, []
        self.path, self._file = path, ChainedFile(path)
        self.write(event, **fields)
        for line in earlier:
            self.write(line["event"], **{name: value for name, value in line.items() if name not in ("at", "event")})

    def write(self, event: str, **fields: Any) -> None:
        """Add one event; `fields` are plain JSON values, others are written as text.

        Raises:
            BadFile: it cannot be written, because the disk is full, for example.

        Several processes write to the file, and each may be killed at any moment.
        """
        line = {"at": self._clock(), "event": event, **self._redactor.data(fields)}
        with self._lock:
            self.events.append(line)
            if self._file is not None and self.path is not None:
                try:
                    self._file.append(lambda previous: self._text({**line, FIELD: previous}))
                except OSError as error:
                    raise unwritable(self.path, error) from error

    def _text(self, line: Mapping[str, Any]) -> str:
        return json.dumps(line, ensure_ascii=False, default=lambda value: self._redactor.text(str(value)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


_EVENT: dict[str, Any] = {"event": str} | {
    f"{name}?": str for name in ("at", "stage", "notebook", "phase", "target", "error", "action", "verb", "object")
}
_EVENT |= {"status?": re.compile("done|failed|refused|interrupted"), "result?": re.compile("done|failed")}
_EVENT |= {f"{name}?": str for name in ("commit", "cluster", "fluobook", "person", "host", "digest", "form", "detail")}
_EVENT |= {"needs?": [str], "versions?": {"*": str}}
_EVENT |= {"charts?": str, "exit_code?": int, "seconds?": (int, float), "stages?": [str], "sources?": [{"*": str}]}
_EVENT |= {"rehearsed?": str, "rehearses?": {"*": (str, list)}}
_STARTED = {"phase", "target", "stages"}
FACTS = ("charts", "sources", "rehearses")
"""What the first event says, and the summary too."""


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a line that a crash truncated, or that is no event, is skipped.

    A field of another type than a run writes makes it none, and a time that no action takes.

    Raises:
        BadFile: it cannot be read, is a link, or is too large.
    """
    return list(filter(None, _events(path)))


def _events(path: Path) -> list[dict[str, Any]]:
    """An event for each line; an empty one for a line that is none."""
    lines = read_text(path, largest=LARGEST_RECORD, errors="replace", follow=False).split("\n")
    return [_event(line, path) for line in lines if line]


def _event(line: str, path: Path) -> dict[str, Any]:
    with suppress(BadFile):
        event = parse_json(line, path)
        if not mismatch(event, _EVENT) and 0 <= (event.get("seconds") or 0) < math.inf:
            return {name: value for name, value in event.items() if value is not None and name != FIELD}
    return {}


def beginning(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The event with which a run began; empty if there is none."""
    return next((event for event in events if event["event"] == "run-started"), {})


_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run.

    `status` is done, failed, refused, interrupted or not run; `actions` counts those that were done; `checks` of
    `total` checks passed; `seconds` is wall time.
    """

    stage: str
    notebook: str
    status: Literal["done", "failed", "refused", "interrupted", "not run"] = "not run"
    actions: _Count = 0
    checks: _Count = 0
    total: _Count = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    error: str = ""
    exit_code: _Count = 0

    def line(self) -> str:
        """One line for the terminal."""
        mark = {"done": "✓", "failed": "✗", "refused": "■", "interrupted": "✗"}.get(self.status, "·")
        actions = f"{self.actions} action{'s' * (self.actions != 1)}"
        return f"{mark} {self.stage:<22} {actions:>11}  {self.checks:>2}/{self.total:<2} checks  {self.seconds:6.1f} s"


def summarise(stage: str, notebook: str, events: Sequence[dict[str, Any]], **rest: Any) -> StageSummary:
    """The summary of one stage, from the events of its run."""
    own = [event for event in events if event.get("stage") == stage]
    actions = sum(event["event"] == "outcome" and event.get("result") == "done" for event in own)
    verified = [event.get("checks") for event in own if event["event"] == "verified"]
    checks = verified[-1] if verified and isinstance(verified[-1], list) else []
    passed = [isinstance(check, dict) and bool(check.get("passed")) for check in checks]
    return StageSummary(stage, notebook, actions=actions, checks=sum(passed), total=len(passed), **rest)


@dataclass(frozen=True)
class Rehearses:
    """What a rehearsal stands for: the plan of a stage on a live platform, which was read `at` that time (ISO 8601).

    `cluster` is that platform's name; where a lab stood for it, which lab, so that no gate takes it for the platform's.
    `digest` is that of the live plan, "" if it was refused; `unlike` is how the lab is known to differ.
    """

    cluster: str
    stage: str
    digest: str
    at: str
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A run: its phase, target, exit code, stages, in the lab what served each chart, and the end of its journal.

    `rehearses` is what it stands for, if its lab resembled a live platform.
    """

    phase: str
    target: str
    exit_code: int
    stages: tuple[StageSummary, ...]
    charts: str = ""
    sources: tuple[Mapping[str, str], ...] = ()
    journal: Head = field(default_factory=Head)
    rehearses: Rehearses | None = None


@dataclass(frozen=True)
class Record:
    """What a run left in its folder: its summary and its events, and what of them is missing or damaged."""

    summary: Summary
    events: Sequence[dict[str, Any]]
    damage: tuple[str, ...]


def read_record(folder: Path) -> Record:
    """The record of a run; without a summary, as a killed run leaves it, its journal says what happened.

    Raises:
        BadFile: neither says what happened.
    """
    journal, events, unread = folder / "events.jsonl", list[dict[str, Any]](), None
    try:
        events = _events(journal)
    except BadFile as error:
        unread = error
    torn = sum(not event for event in events)
    damage = [f"events.jsonl has {torn} line{'s' * (torn > 1)} without an event"] if torn else []
    damage += ["events.jsonl is empty"] if not (events or unread) else []
    events = list(filter(None, events))
    summary, damaged = read_summary(folder)
    try:
        summary = summary or summary_of(events)
    except BadFile as error:
        raise damaged or unread or BadFile(journal, error.problem, remedy=error.remedy) from None
    damage += [f"{Path(error.path).name} {error.problem}" for error in (unread, damaged) if error]
    return Record(summary, events, tuple(damage))


def read_summary(folder: Path) -> tuple[Summary | None, BadFile | None]:
    """The summary of a run, and what is wrong with its file; neither if there is no file."""
    path = folder / "summary.json"
    if not os.path.lexists(path):
        return None, None
    try:
        return TypeAdapter(Summary).validate_python(parse_json(read_text(path, follow=False), path)), None
    except BadFile as error:
        return None, error
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"])) or "it"
        state = "is missing" if detail["type"] == "missing" else f"is {shown(detail['input'])}"
        problem = f"is not the summary of a run: {place} {state}"
        return None, BadFile(path, problem, remedy="restore it, or start a new run")


def altered(folder: Path) -> list[str]:
    """What was altered, torn or cut in the record of a run; nothing if it is as the run wrote it.

    Raises:
        BadFile: the journal cannot be read.
    """
    summary, damage = read_summary(folder)
    problems = [f"summary.json {damage.problem}"] if damage else []
    problems += chain.problems(folder, summary.journal if summary else None, damaged=bool(damage))
    if summary is None or (problems and problems != [chain.NO_CHAIN]):
        return problems
    try:
        computed = summary_of(read(folder / "events.jsonl"))
    except BadFile as error:
        return [*problems, f"the journal {error.problem}"]
    names = {"phase", "target", "exit_code", "rehearses"}
    differing = [name for name in sorted(names) if getattr(summary, name) != getattr(computed, name)]
    apart = {"error": "", "exit_code": 0, "notebook": ""}  # what the journal may say in other words
    stages, others = ([{**asdict(stage), **apart} for stage in side.stages] for side in (summary, computed))
    if stages != others:
        differing.append("stages")
    return problems + [f"summary.json says otherwise than the journal: {', '.join(differing)}"] * bool(differing)


def summary_of(events: Sequence[dict[str, Any]]) -> Summary:
    """The summary of a run from its journal; without an end, its exit code is 1.

    Raises:
        BadFile: no event says how the run began.
    """
    begins = (event for event in events if event["event"] == "run-started" and event.keys() >= _STARTED)
    if (started := next(begins, None)) is None:
        remedy = "restore it, or start a new run"
        raise BadFile("events.jsonl", "has no line that says how the run began", remedy=remedy)
    staged = [event for event in events if isinstance(event.get("stage"), str)]
    by_kind = {kind: {e["stage"]: e for e in staged if e["event"] == kind} for kind in _KINDS}
    stages = []
    for stage in started["stages"]:
        begun, ended = (by_kind[kind].get(stage, {}) for kind in _KINDS)
        own = [event for event in events if event.get("stage") == stage]
        verified = any(event["event"] == "verified" and event.get("ok") is True for event in own)
        status = ended.get("status") or ("done" if verified else "interrupted" if own else "not run")
        rest = {"status": status, "seconds": ended.get("seconds", 0.0), "error": ended.get("error", "")}
        stages.append(asdict(summarise(stage, begun.get("notebook", ""), events, **rest)))
    code = next((e["exit_code"] for e in reversed(events) if e["event"] == "run-ended" and "exit_code" in e), 1)
    data = {"phase": started["phase"], "target": started["target"], "exit_code": code, "stages": stages}
    data |= {name: started[name] for name in FACTS if name in started}
    return TypeAdapter(Summary).validate_python(data)


_KINDS = ("notebook-started", "notebook-ended")
