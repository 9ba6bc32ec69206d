"""Every error of fluobook in one tree; no foreign exception leaves `fluobook.clients`.

An error says what happened; `fluobook.failures` adds the likely causes, the remedy and the next command.
The exit code of the command line is the error's `exit_code`; this table is the only one:

    0    done, or nothing to change
    1    FluobookError
         ├── OutsideError            an external system refused, failed or did not answer
         │   ├── Unreachable         no connection, or its TLS certificate is not the expected one
         │   ├── InvalidAnswer       the server's answer cannot be read: a login page, truncated, of wrong types
         │   ├── AccessDenied        wrong credentials, or not enough rights
         │   ├── NotFound            the object asked for does not exist
         │   ├── Conflict            the object exists already, or somebody else changed it
         │   ├── Rejected            the request was understood and refused as invalid
         │   ├── TaskFailed          a Proxmox VE task ended in an error (its log's tail is attached)
         │   └── ToolFailed          helm, kubectl, sops or git ended with an error, or is missing
         ├── BadFile                 a file cannot be read or written, or its content is invalid
         ├── DeadlineExceeded        a named wait took longer than its deadline
         ├── ForeignObject           an object that fluobook does not manage is in the way
         ├── Locked                  another operator or another run holds the lock on this cluster
         ├── StageMissing            blocked: an earlier stage has not run yet
         └── Refused                 fluobook refuses, because data would be lost or a secret would leak
    2    changes pending             (`fluobook plan`; not an error), or differences (`fluobook charts diff`)
         Drifted                     runbook 27: what runs is not what the params and Git say
    3    ApprovalNeeded
         └── PlanChanged             the plan is no longer the approved one
    4    CheckFailed
    64   UsageError                  wrong command line
         └── ParamsError             wrong parameters, with every problem listed
    130, 143                         ended by SIGINT, SIGTERM
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXIT_CHANGES_PENDING = 2

PHASE = "<phase>"
"""Stands for the platform in a command that an error or a check suggests; it is filled in where that is shown."""
KUBECTL, TALOSCTL = (f"fluobook {program} {PHASE} --" for program in ("kubectl", "talosctl"))
"""How a suggested command begins that acts on the platform, whatever cluster kubectl and talosctl would use."""


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text in which each control character, which could change what a terminal shows, is written as its escape."""
    return _CONTROL.sub(lambda control: repr(control[0])[1:-1], text)


def in_commands(phase: str, target: str) -> str:
    """How commands name a platform: by its phase, and by the target if that is not the lab."""
    return phase if target == "lab" else f"{phase} --target {target}"


class FluobookError(Exception):
    """The base of every error.

    Args:
        message: what happened, in one sentence, with the names of the things concerned.
        cause: the likely cause, if it is known.
        remedy: the next command or the change that helps.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.remedy = remedy


class OutsideError(FluobookError):
    """An external system refused, failed or did not answer.

    Args:
        message: what happened.
        system: the system that answered or did not: "proxmox", "talos", "kubernetes", "factory", "helm"…
        detail: the system's answer: status, body, task log, standard error.
        code: the system's own code, such as "500", "UNAVAILABLE" or "AlreadyExists".
        cause: as in `FluobookError`; only what the catalogue in `fluobook.failures` cannot know.
        remedy: as in `FluobookError`; only what the catalogue cannot know.
        facts: values for the catalogue's commands, such as address, vmid or url.
    """

    def __init__(
        self,
        message: str,
        *,
        system: str,
        detail: str = "",
        code: str = "",
        cause: str = "",
        remedy: str = "",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, cause=cause, remedy=remedy)
        self.system = system
        self.detail = detail
        self.code = code
        self.facts = dict(facts or {})
        self.retry_after: float | None = None
        """Seconds after which the server asks to be called again."""


class Unreachable(OutsideError):
    """No connection, or the TLS certificate is not the expected one."""


class InvalidAnswer(OutsideError):
    """The server's answer cannot be read: a web page, empty, truncated, too large, of wrong types, or a redirect."""

    location = ""
    """Where a redirect leads that was not followed; never shown, because it may contain a token."""


class AccessDenied(OutsideError):
    """Wrong credentials, or not enough rights."""


class NotFound(OutsideError):
    """The object asked for does not exist."""


class Conflict(OutsideError):
    """The object exists already, or somebody else changed it."""


class Rejected(OutsideError):
    """The request was understood and refused as invalid."""


class TaskFailed(OutsideError):
    """A Proxmox VE task ended in an error; `detail` is its log's tail."""


class ToolFailed(OutsideError):
    """helm, kubectl, sops or git ended with an error, or is missing."""


def may_be_starting(error: FluobookError) -> bool:
    """Whether an error may mean that a server is absent or starts.

    A certificate that is not trusted, missing rights, and an answer that cannot be read never do: something else is
    wrong, and neither waiting nor an earlier stage fixes it.
    """
    if not isinstance(error, OutsideError) or isinstance(error, AccessDenied | InvalidAnswer):
        return False
    return not error.code.startswith(("CERTIFICATE", "TLS_ALERT", "NOT_TLS"))


class BadFile(FluobookError):
    """A file cannot be read or written, or its content is invalid.

    Args:
        path: the file, or another name for its content.
        problem: what is wrong, without a subject: "is not text".
        line: where, from 1; 0 for the file as a whole.
        remedy: as in `FluobookError`.
    """

    system = "file"

    def __init__(self, path: Path | str, problem: str, *, line: int = 0, remedy: str = "") -> None:
        super().__init__(f"{path}:{line} {problem}" if line else f"{path} {problem}", remedy=remedy)
        self.path, self.problem, self.line = path, problem, line


class DeadlineExceeded(FluobookError):
    """A named wait took longer than its deadline."""


class ForeignObject(FluobookError):
    """An object that fluobook does not manage is in the way."""


class Locked(FluobookError):
    """Another operator or another run holds the lock on this cluster."""


class StageMissing(FluobookError):
    """Blocked: an earlier stage has not run yet."""


class Refused(FluobookError):
    """fluobook refuses, because data would be lost or a secret would leak."""


class ApprovalNeeded(FluobookError):
    """The plan has not been approved; nothing was changed."""

    exit_code = 3


class PlanChanged(ApprovalNeeded):
    """The plan is no longer the approved one; nothing was changed."""


class CheckFailed(FluobookError):
    """The live system differs from the desired state."""

    exit_code = 4


class Drifted(CheckFailed):
    """What runs is not what the params and Git say; everything could be read."""

    exit_code = EXIT_CHANGES_PENDING


class UsageError(FluobookError):
    """The command line is wrong."""

    exit_code = 64


class ParamsError(UsageError):
    """The parameters are wrong; `problems` lists each mistake in one sentence."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), cause: str = "", remedy: str = "") -> None:
        super().__init__(message, cause=cause, remedy=remedy)
        self.problems = problems
