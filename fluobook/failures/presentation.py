"""How an error is shown to a person: the same content in a notebook, on the command line and in the report."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fluobook.errors import PHASE, DeadlineExceeded, OutsideError, ParamsError, Unreachable, printable
from fluobook.failures.catalogue import chain, explain
from fluobook.failures.probes import probe

_MOST_ALTERNATIVES = 2
_MOST_LINES = 20
_NEXT = "; next: "
_ROW = re.compile(r"^  (failure|cause|remedy|next): +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Presentation:
    """An error as it is shown.

    Args:
        message: what happened.
        failure: code and title of the catalogue's entry, such as "F28 etcd was bootstrapped before"; "" if unknown.
        causes: the likely causes, the most likely first; the error's own cause, if it has one, comes first.
        remedy: what helps.
        next: the next command.
        alternatives: code and title of other entries that match.
        problems: what is wrong with each parameter.
        system: the system that answered.
        answer: the lines that this system answered.
    """

    message: str
    failure: str = ""
    causes: tuple[str, ...] = ()
    remedy: str = ""
    next: str = ""
    alternatives: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    system: str = ""
    answer: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """The remedy and the next command in one line, for a table of checks or findings."""
        return f"{self.remedy.rstrip('.')}{_NEXT}{self.next}" if self.next else self.remedy

    @classmethod
    def read(cls, text: str) -> Presentation:
        """What `text` has written after the name of the error's class, without alternatives and answers."""
        rows = list(_ROW.finditer(text))
        values = {row[1]: row[2] for row in reversed(rows)}
        message = text[: rows[0].start()] if rows else text
        remedy, _, command = values.get("remedy", "").partition(_NEXT)
        return cls(
            message=message.partition(": ")[2].strip() or message,
            failure=values.get("failure", ""),
            causes=tuple(row[2] for row in rows if row[1] == "cause"),
            remedy=remedy,
            next=values.get("next", command),
        )

    def table(self) -> list[tuple[str, str]]:
        """Rows of a label and a text, without the message."""
        rows = [("failure", self.failure), *(("cause", cause) for cause in self.causes)]
        rows += [("remedy", self.remedy), ("next", self.next)]
        rows += [("or", f"{title} (fluobook explain {title.split()[0]})") for title in self.alternatives]
        rows += [("", f"- {problem}") for problem in self.problems]
        rows += [(f"{self.system} answered", "\n".join(self.answer))] if self.answer else []
        return [(label, text) for label, text in rows if text]

    def text(self) -> str:
        """The message, then each row of the table on lines of its own."""
        lines = [self.message]
        for label, text in self.table():
            if "answered" in label:
                lines += [f"  {label}:", *(f"    {line}" for line in self.answer)]
            else:
                lines.append(f"  {label + ':':<8} {text}" if label else f"  {text}")
        return "\n".join(lines)


def present(error: BaseException, *, phase: str = "", with_probe: bool = False) -> Presentation:
    """What is shown of an error; its own cause and remedy come before those of the catalogue.

    Args:
        error: any exception.
        phase: how commands name the platform (`errors.in_commands`); without it, no command of the catalogue that
            needs it is shown.
        with_probe: connect to an unreachable endpoint, to tell similar causes apart; takes some seconds at most.
    """
    matches = explain(error, phase)
    first = matches[0] if matches else None
    outside = next((link for link in chain(error) if isinstance(link, OutsideError) and link.detail.strip()), None)
    own_cause, own_remedy = str(getattr(error, "cause", "")), str(getattr(error, "remedy", ""))
    if first and isinstance(error, DeadlineExceeded) and own_remedy:  # its own remedy only says what was waited for
        own_remedy = f"{first.failure.remedy.rstrip('.')}; {own_remedy}"
    unreachable = next((link for link in chain(error) if isinstance(link, Unreachable)), None)
    probed = probe(unreachable) if with_probe and unreachable else ""
    command = first.next if first and f"{_NEXT}{first.next}" not in own_remedy else ""
    causes = [own_cause, probed, *(first.failure.causes if first else ())]

    def text(template: str) -> str:
        return printable(template.replace("{phase}", PHASE).replace(PHASE, phase or PHASE))

    return Presentation(
        message=text(str(getattr(error, "message", "")) or str(error) or type(error).__name__),
        failure=f"{first.failure.code} {first.failure.title}" if first else "",
        causes=tuple(dict.fromkeys(text(cause) for cause in causes if cause)),
        remedy=text(own_remedy or (first.failure.remedy if first else "")),
        next=printable(command),
        alternatives=tuple(f"{m.failure.code} {m.failure.title}" for m in matches[1 : 1 + _MOST_ALTERNATIVES]),
        problems=tuple(map(printable, error.problems)) if isinstance(error, ParamsError) else (),
        system=outside.system if outside else "",
        answer=tuple(map(printable, outside.detail.strip().splitlines()[-_MOST_LINES:])) if outside else (),
    )
