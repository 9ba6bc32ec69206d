"""The catalogue of known failures (catalogue.yaml), and the matcher that finds the entries for an error."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from fluobook.errors import OutsideError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LONGEST_EVIDENCE = 160
_FEWEST_LETTERS = 3
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
        kinds: error classes of those systems, such as "AccessDenied"; used if nothing more specific matches.
        causes: the likely causes, the most likely first.
        remedy: what helps.
        next: the next command; {name} is filled from the symptom's group of that name or from the error's facts.
    """

    code: str
    title: str
    symptoms: tuple[re.Pattern[str], ...]
    systems: frozenset[str]
    codes: frozenset[str]
    kinds: frozenset[str]
    causes: tuple[str, ...]
    remedy: str
    next: str

    def text(self) -> str:
        """The entry as a person reads it."""
        lines = [f"{self.code} {self.title}", *(f"  cause:  {cause}" for cause in self.causes)]
        lines += [f"  remedy: {self.remedy}", f"  next:   {fill(self.next, {})}"]
        return "\n".join([*lines, f"  seen by: {', '.join(sorted(self.systems))}"] if self.systems else lines)


@dataclass(frozen=True)
class Match:
    """A catalogue entry that an error matches.

    Args:
        failure: the entry.
        next: its next command; <name> stands for a value that is not known.
        evidence: the text, or the system and code, that matched.
        rank: how reliable the match is: a symptom before a code before a class, a longer text before a shorter one.
    """

    failure: Failure
    next: str
    evidence: str
    rank: tuple[int, int]


@cache
def catalogue() -> tuple[Failure, ...]:
    """Every known failure, in the catalogue's order; read when it is first needed."""
    import yaml  # noqa: PLC0415  (most runs show no error)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = resources.files("fluobook.failures").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return tuple(_failure(code, fields) for code, fields in yaml.load(text, Loader=loader).items())  # noqa: S506


def _failure(code: str, fields: Mapping[str, Any]) -> Failure:
    return Failure(
        code=code,
        title=fields["title"],
        symptoms=tuple(re.compile(symptom, re.IGNORECASE) for symptom in fields.get("symptoms", ())),
        systems=frozenset(fields.get("systems", ())),
        codes=frozenset(fields.get("codes", ())),
        kinds=frozenset(fields.get("kinds", ())),
        causes=tuple(fields["causes"]),
        remedy=fields["remedy"],
        next=fields["next"],
    )


def entry(code: str) -> Failure:
    """The entry with a code such as "F28"; upper and lower case are the same.

    Raises:
        UsageError: there is none; the message names entries with a similar code or with that word in their title.
    """
    entries = {failure.code: failure for failure in catalogue()}
    if found := entries.get(code.upper()):
        return found
    near = difflib.get_close_matches(code.upper(), entries, n=3, cutoff=0.6)
    if len(code) >= _FEWEST_LETTERS and not re.fullmatch(r"[fF]?\d+", code):
        near = [failure.code for failure in entries.values() if code.lower() in failure.title.lower()][:5] or near
    names = "; ".join(f"{name} {entries[name].title}" for name in near)
    raise UsageError(
        f"there is no known failure {code!r}",
        remedy=f"did you mean: {names}"
        if names
        else f"codes are F01 to {catalogue()[-1].code}, see docs/reference/failures.md",
    )


def explain(error: BaseException | str) -> list[Match]:
    """The known failures that an error or a text matches, the most likely first; empty if it is not known.

    Args:
        error: an error (its `__cause__` chain is searched too), or a text such as a log, an event or a message.
    """
    matches = [match for failure in catalogue() if (match := _match(failure, error))]
    specific = [match for match in matches if match.rank > _BY_CLASS]
    return sorted(specific or matches, key=lambda match: match.rank, reverse=True)


def fill(command: str, values: Mapping[str, str]) -> str:
    """A command with its {name}s filled in; a name without a value becomes <name>."""
    return re.sub(r"\{(\w+)\}", lambda name: values.get(name[1]) or f"<{name[1]}>", command)


def _match(failure: Failure, error: BaseException | str) -> Match | None:
    """The best match in the chain of causes; a foreign exception belongs to the system of the error it caused."""
    best, system = None, ""
    for link in chain(error):
        system = link.system if isinstance(link, OutsideError) else system
        if system and failure.systems and system not in failure.systems:
            continue
        match = _match_one(failure, link)
        best = max(filter(None, (best, match)), key=lambda found: found.rank, default=None)
    return best


def _match_one(failure: Failure, error: BaseException | str) -> Match | None:
    outside = error if isinstance(error, OutsideError) else None
    facts = dict(outside.facts) if outside else {}
    text = f"{outside.message}\n{outside.detail}" if outside else str(error)
    hits = [hit for symptom in failure.symptoms if (hit := symptom.search(text))]
    if hits:
        longest = max((hit.group() for hit in hits), key=len)
        facts |= {name: value for hit in hits for name, value in hit.groupdict().items() if value}
        evidence, rank = " ".join(longest.split())[:_LONGEST_EVIDENCE], (2, len(longest))
    elif outside and outside.code in failure.codes:
        evidence, rank = f"{outside.system} {outside.code}", (1, 0)
    elif outside and failure.kinds & {kind.__name__ for kind in type(outside).__mro__}:
        evidence, rank = f"{outside.system} {type(outside).__name__}", _BY_CLASS
    else:
        return None
    return Match(failure, fill(failure.next, facts), evidence, rank)


def chain(error: BaseException | str) -> Iterator[BaseException | str]:
    """The error and its causes, each once."""
    visited: set[int] = set()
    link: BaseException | str | None = error
    while link is not None and id(link) not in visited:
        visited.add(id(link))
        yield link
        link = link.__cause__ if isinstance(link, BaseException) else None
