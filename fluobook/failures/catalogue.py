"""The catalogue of known failures (catalogue.yaml), and the matcher that finds the entries for an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from fluobook.errors import DeadlineExceeded, OutsideError, UsageError
from fluobook.files import packaged

_BY_CLASS = (0, 0)


@dataclass(frozen=True)
class Failure:
    """A known failure.

    Args:
        code: its number in the catalogue, such as "F07".
        title: what happened, in one line.
        symptoms: regular expressions that are searched for in an error's text, without regard to case.
        systems: the systems that report it ("proxmox", "talos"); empty for any.
        codes: error codes of those systems, such as "401"; they rank below a symptom.
        exact_codes: error codes that leave no doubt; they rank above a symptom.
        kinds: error classes of those systems, such as "AccessDenied", or "4xx" for every such code; used if nothing
            more specific matches.
        causes: the likely causes, the most likely first.
        remedy: what helps.
        next: the next commands, the best first. {name} is filled from the symptom's group of that name or from the
            error's facts; the first command whose names are all known is shown.
    """

    code: str
    title: str
    causes: Sequence[str]
    remedy: str
    next: Sequence[str]
    symptoms: Sequence[re.Pattern[str]] = ()
    systems: Sequence[str] = ()
    codes: Sequence[str] = ()
    exact_codes: Sequence[str] = ()
    kinds: Sequence[str] = ()

    @property
    def template(self) -> str:
        """The best next command with <name> for each value, for pages that explain the entry."""
        return self.next[0].format_map(_Placeholders())

    def text(self) -> str:
        """The entry as a person reads it."""
        lines = [f"{self.code} {self.title}", *(f"  cause:  {cause}" for cause in self.causes)]
        lines += [f"  remedy: {self.remedy}", f"  next:   {self.template}"]
        return "\n".join([*lines, f"  seen by: {', '.join(sorted(self.systems))}"] if self.systems else lines)


@dataclass(frozen=True)
class Match:
    """A catalogue entry that an error matches.

    Args:
        failure: the entry.
        next: its next command; "" if a value in it is not known.
        rank: how reliable the match is: a symptom before a code before a class, a longer text before a shorter one.
    """

    failure: Failure
    next: str
    rank: tuple[int, int]


@cache
def catalogue() -> tuple[Failure, ...]:
    """Every known failure, in the catalogue's order; read when it is first needed."""
    return tuple(_failure(code, **fields) for code, fields in packaged(__package__, "catalogue.yaml").items())


def _failure(code: str, *, next: str | list[str], symptoms: Sequence[str] = (), **fields: Any) -> Failure:  # noqa: A002
    patterns = [re.compile(symptom, re.IGNORECASE) for symptom in symptoms]
    return Failure(code, symptoms=patterns, next=[next] if isinstance(next, str) else next, **fields)


def entry(code: str) -> Failure:
    """The entry with a code such as "F28"; upper and lower case are the same.

    Raises:
        UsageError: there is none; the message names entries with a similar code or with that word in their title.
    """
    entries = {failure.code: failure for failure in catalogue()}
    if code.upper() in entries:
        return entries[code.upper()]
    titled = [name for name in entries if code[2:] and code.lower() in entries[name].title.lower()]
    similar = titled[:5] or difflib.get_close_matches(code.upper(), entries, n=3, cutoff=0.6)
    named = "; ".join(f"{name} {entries[name].title}" for name in similar)
    codes = f"codes are F01 to {catalogue()[-1].code}, see docs/reference/failures.md"
    raise UsageError(f"there is no known failure {code!r}", remedy=f"did you mean: {named}" if named else codes)


def explain(error: BaseException | str, phase: str = "") -> list[Match]:
    """The known failures that an error or a text matches, the most likely first; empty if it is not known.

    Args:
        error: an error (its `__cause__` chain is searched too), or a text such as a log, an event or a message.
        phase: how next commands name the platform (`errors.in_commands`); "" if it is not known.
    """
    matches = [match for failure in catalogue() if (match := _match(failure, error, phase))]
    specific = [match for match in matches if match.rank > _BY_CLASS]
    return sorted(specific or matches, key=lambda match: match.rank, reverse=True)


class _Placeholders(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def fill(commands: Sequence[str], values: Mapping[str, str]) -> str:
    """The first command whose {name}s all have a value, filled in; "" if there is none."""
    known = {name: value for name, value in values.items() if value}
    for command in commands:
        with suppress(KeyError):
            return command.format_map(known)
    return ""


def _match(failure: Failure, error: BaseException | str, phase: str) -> Match | None:
    """The best match in the chain of causes; a foreign exception belongs to the system of the error it caused."""
    matches, system = [], ""
    for link in chain(error):
        system = getattr(link, "system", system)
        if not (system and failure.systems) or system in failure.systems:
            matches.append(_match_one(failure, link, phase))
    return max(filter(None, matches), key=lambda match: match.rank, default=None)


def _match_one(failure: Failure, error: BaseException | str, phase: str) -> Match | None:
    outside = error if isinstance(error, OutsideError) else None
    facts = {**(outside.facts if outside else {}), "phase": phase}
    text = f"{outside.message}\n{outside.detail}" if outside else str(error)
    if isinstance(error, DeadlineExceeded):
        text += f"\n{error.cause}"  # the last state of what was waited for
    hits = [hit for symptom in failure.symptoms if (hit := symptom.search(text))]
    if outside and outside.code in failure.exact_codes:
        rank = (3, 0)
    elif hits:
        facts |= {name: value for hit in hits for name, value in hit.groupdict().items() if value}
        rank = (2, max(len(hit.group()) for hit in hits))
    elif outside and outside.code in failure.codes:
        rank = (1, 0)
    elif outside and not _kinds(outside).isdisjoint(failure.kinds):
        rank = _BY_CLASS
    else:
        return None
    return Match(failure, fill(failure.next, facts), rank)


def _kinds(error: OutsideError) -> set[str]:
    """The error's classes, and "4xx" or "5xx" for an HTTP status."""
    status = {f"{error.code[0]}xx"} if re.fullmatch(r"[45]\d\d", error.code) else set()
    return status | {kind.__name__ for kind in type(error).__mro__}


def chain(error: BaseException | str) -> Iterator[BaseException | str]:
    """The error and its causes, each once."""
    visited: set[int] = set()
    link: BaseException | str | None = error
    while link is not None and id(link) not in visited:
        visited.add(id(link))
        yield link
        link = link.__cause__ if isinstance(link, BaseException) else None
