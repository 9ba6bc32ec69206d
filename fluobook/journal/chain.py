"""The hash chain of a journal: each line carries the hash of the line before it, so that a change is noticed later.

The chain proves that lines were neither changed, removed nor inserted since the last hash was noted elsewhere: in the
summary, the report, a ticket. Whoever can rewrite all of these can write another chain.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluobook.errors import BadFile
from fluobook.files import LARGEST_RECORD, parse_json, read_text

FIELD = "previous"
"""The field of an event with the SHA-256 of the line before it; empty in the first line."""
MOST_BREAKS = 4
"""Places that are named where a chain is broken; more are counted."""
NOTEBOOK = re.compile(r"\w[\w-]*\.ipynb")
"""The name of a notebook in a run folder."""


def digest(line: bytes) -> str:
    """The hash of a line, without its end."""
    return hashlib.sha256(line).hexdigest()


class ChainedFile:
    """A file to which several processes append lines, each line with the hash of the one before it.

    Args:
        path: the file; it is made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._end, self._hash = 0, ""

    def append(self, line: Callable[[str], str]) -> None:
        """Append a line in one call, and sync it to the disk.

        Args:
            line: returns the line for the hash of the one before it.

        Raises:
            OSError: it cannot be written, or only in part.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            begin = self._read_to_end()
            data = begin + f"{line(self._hash)}\n".encode()
            complete = os.write(self._file, data) == len(data)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        os.fsync(self._file)
        if not complete:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read_to_end(self) -> bytes:
        """Read what was appended since the last call; returns what ends a line that a killed process left torn."""
        size = os.fstat(self._file).st_size
        begin = self._end if size >= self._end else 0
        added = os.pread(self._file, size - begin, begin)
        if added:
            self._hash = digest(added.removesuffix(b"\n").rpartition(b"\n")[2])
        torn = not added.endswith(b"\n") and bool(added)
        self._end = size - len(added.rpartition(b"\n")[2]) if torn else size
        return b"\n" if torn else b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass(frozen=True)
class Head:
    """The end of a journal: how many lines it has, and the hash of the last one."""

    lines: int = 0
    sha256: str = ""


def head(path: Path) -> Head:
    """The end of a journal as it is now.

    Raises:
        BadFile: it cannot be read.
    """
    lines = _lines(path)
    return Head(len(lines), digest(lines[-1])) if lines else Head()


NO_CHAIN = "the journal is without a chain, as earlier versions wrote it: it cannot be verified"


def problems(folder: Path, recorded: Head | None, *, damaged: bool = False) -> list[str]:
    """What was altered, torn or cut in the journal of a run; nothing if it is as the run wrote it.

    Args:
        folder: the run folder.
        recorded: the end of the journal as the summary has it; None without a summary.
        damaged: whether there is a summary that cannot be read.

    Raises:
        BadFile: the journal cannot be read.
    """
    path = folder / "events.jsonl"
    lines = _lines(path)
    if not lines:
        return ["the journal is empty"]
    if any(not line or line.endswith(b"\r") for line in lines):
        return [
            "the ends of the journal's lines were changed (CR LF, blank lines): change them back, then verify again"
        ]
    events = [_event(line, path) for line in lines]
    if not any(FIELD in event for event in events):
        if not (recorded and recorded.sha256):
            return [NO_CHAIN]
        return ["the journal was altered: its lines have no hashes, but the summary has one"]
    copied = _copies(lines)
    kept = [number for number in range(1, len(lines) + 1) if number not in copied]
    broken = [*_named(copied), *_broken(lines, events, kept)]
    if (more := len(broken) - MOST_BREAKS) > 0:
        broken[MOST_BREAKS:] = [f"in {more} more places lines were altered, removed, inserted or moved"]
    own = [lines[number - 1] for number in kept]
    ended = _end(own, [events[number - 1] for number in kept], recorded or Head(), damaged=damaged)
    return [*broken, *ended, *_notebooks(folder, events)]


def _copies(lines: Sequence[bytes]) -> dict[int, int]:
    """The lines that are copies of an earlier one, counted from 1: no two lines of a run are the same."""
    first: dict[bytes, int] = {}
    numbers = {number: first.setdefault(line, number) for number, line in enumerate(lines, 1)}
    return {number: original for number, original in numbers.items() if original != number}


def _named(copied: Mapping[int, int]) -> Iterator[str]:
    """A sentence for each block of copies."""
    for _, block in itertools.groupby(enumerate(copied), lambda place: place[1] - place[0]):
        numbers = [number for _, number in block]
        originals = [copied[number] for number in numbers]
        are = "is a copy" if len(numbers) == 1 else "are copies"
        yield f"{_span(numbers)} {are} of {_span(originals)}"


def _span(numbers: Sequence[int]) -> str:
    first, last = min(numbers), max(numbers)
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _lines(path: Path) -> list[bytes]:
    lines = _content(path).split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _content(path: Path) -> bytes:
    text = read_text(path, largest=LARGEST_RECORD, errors="surrogateescape", follow=False)
    return text.encode(errors="surrogateescape")


def _event(line: bytes, path: Path) -> Mapping[str, Any]:
    with suppress(BadFile):
        event = parse_json(line.decode(errors="replace"), path)
        return event if isinstance(event, dict) else {}
    return {}


def _broken(lines: Sequence[bytes], events: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> Iterator[str]:
    """Where the chain is broken; lines are counted from 1, and only these are examined."""
    places = {digest(lines[number - 1]): number for number in numbers}
    hashes = {number: text for text, number in places.items()}
    links = {number: str(events[number - 1].get(FIELD)) for number in numbers}
    linked, last, reordered = set(links.values()), 0, False
    for number, following in itertools.pairwise([*numbers, 0]):
        event, link, before = events[number - 1], links[number], hashes.get(last, "")
        is_inserted = bool(last) and links.get(following) == before and hashes[number] not in linked
        if not event:
            followed = not following or links[following] == hashes[number]
            reason = "is torn: the process that wrote it was killed" if followed else "was altered: it is no event"
            yield f"line {number} {reason}"
        elif FIELD not in event:
            yield f"line {number} was inserted or altered: it has no hash of the line before it"
        elif places.get(link, 0) > number:
            yield f"line {number} belongs after line {places[link]}: the lines are in another order"
            reordered = True
            continue
        elif link != before and not reordered and (not last or events[last - 1]):
            if link in places:
                end, begin = (following, last) if is_inserted else (number, places[link])
                yield f"lines were inserted before line {end}, after line {begin}"
            elif not last:
                yield f"lines before line {number} were cut off"
            elif FIELD in events[last - 1]:
                yield f"line {last} was altered, or lines between it and line {number} were removed"
        last = last if is_inserted else number


def _end(
    lines: Sequence[bytes], events: Sequence[Mapping[str, Any]], recorded: Head, *, damaged: bool
) -> Iterator[str]:
    """Whether the journal ends where the run did."""
    ended = events[-1].get("event") == "run-ended"
    if len(lines) < recorded.lines:
        removed = f"{recorded.lines - len(lines)} of {recorded.lines} lines were removed"
        yield f"{removed}; the journal ends with line {len(lines)}"
    elif not ended:
        after = next((n for n, event in enumerate(events, 1) if event.get("event") == "run-ended"), 0)
        if after:
            yield f"lines were added after line {after}, with which the run ended"
        else:
            yield f"the journal has no end after line {len(lines)}: the run still works, was killed, or was cut off"
    elif not recorded.sha256 and not damaged:
        yield f"no summary has the hash of line {len(lines)}, the last one: it cannot be verified"
    elif recorded.sha256 and digest(lines[-1]) != recorded.sha256:
        yield f"line {len(lines)}, the last one, has another hash than the summary: one of them was altered"


def _notebooks(folder: Path, events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The executed notebooks that are not as the run left them."""
    ended = [event for event in events if event.get("event") == "notebook-ended" and "sha256" in event]
    for name, expected in {str(event.get("notebook")): event["sha256"] for event in ended}.items():
        if not NOTEBOOK.fullmatch(name):
            continue
        try:
            if notebook_hash(folder / name) != expected:
                yield f"{name} was altered after the run"
        except BadFile as error:
            yield f"{name} {error.problem}"


def notebook_hash(path: Path) -> str:
    """The hash of a file of a run.

    Raises:
        BadFile: it cannot be read.
    """
    return digest(_content(path))
