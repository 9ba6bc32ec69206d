"""From an error, or any text, to the known failures that it looks like."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.errors import OutsideError
from fluobook.failures.catalogue import Failure, catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_EVIDENCE = 160


@dataclass(frozen=True)
class Diagnosis:
    """A known failure, recognised.

    Args:
        code: its number in the catalogue, such as "F07".
        title: what happened.
        cause: why.
        remedy: what helps.
        next: the next command; <name> stands for what could not be read from the error.
        evidence: the words, or the code, by which it was recognised.
        rank: how sure that is: a symptom before a bare code, longer words before shorter ones.
    """

    code: str
    title: str
    cause: str
    remedy: str
    next: str
    evidence: str
    rank: tuple[bool, int] = field(compare=False)

    def __str__(self) -> str:
        """The diagnosis as a person reads it, a line each."""
        lines = [f"{self.code} {self.title}", f"  cause:  {self.cause}", f"  remedy: {self.remedy}"]
        return "\n".join([*lines, f"  next:   {self.next}"])


class _Known(UserDict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def diagnose(found: BaseException | str) -> list[Diagnosis]:
    """The known failures that an error or a text looks like, the likeliest first; none if it is not known.

    Args:
        found: an error (its causes are read too), or a text such as a log, an event or a condition's message.
    """
    known = [diagnosis for failure in catalogue() for diagnosis in _recognise(failure, found)]
    return sorted(known, key=lambda diagnosis: diagnosis.rank, reverse=True)


def _recognise(failure: Failure, found: BaseException | str) -> Iterator[Diagnosis]:
    best: Diagnosis | None = None
    for error in _chain(found):
        system = error.system if isinstance(error, OutsideError) else ""
        if system and failure.systems and system not in failure.systems:
            continue
        diagnosis = _by_symptom(failure, _text(error)) or _by_code(failure, error)
        best = max(filter(None, (best, diagnosis)), key=lambda each: each.rank, default=None)
    if best:
        yield best


def _by_symptom(failure: Failure, text: str) -> Diagnosis | None:
    matches = [match for symptom in failure.symptoms if (match := symptom.search(text))]
    if not matches:
        return None
    longest = max(matches, key=lambda match: len(match.group()))
    names = {name: value for match in matches for name, value in match.groupdict().items() if value}
    return _diagnosis(failure, longest.group(), names, (True, len(longest.group())))


def _by_code(failure: Failure, error: BaseException | str) -> Diagnosis | None:
    if not isinstance(error, OutsideError) or error.code not in failure.codes:
        return None
    return _diagnosis(failure, f"{error.system} {error.code}", {}, (False, 0))


def _diagnosis(failure: Failure, evidence: str, names: dict[str, str], rank: tuple[bool, int]) -> Diagnosis:
    command = failure.next.format_map(_Known(names))
    shortened = " ".join(evidence.split())[:_LONGEST_EVIDENCE]
    return Diagnosis(failure.code, failure.title, failure.cause, failure.remedy, command, shortened, rank)


def _chain(found: BaseException | str) -> Iterator[BaseException | str]:
    """The error and what caused it; each once."""
    seen: set[int] = set()
    here: BaseException | str | None = found
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ if isinstance(here, BaseException) else None


def _text(error: BaseException | str) -> str:
    if isinstance(error, OutsideError):
        return f"{error.message}\n{error.detail}"
    return str(error)
