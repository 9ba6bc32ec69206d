"""Runs one foreign program by argument list, within a deadline, and turns its failures into `ToolFailed`.

The one place where fluobook starts helm, kubectl, sops and git. Secrets travel by environment or standard input, never
by argument: arguments are visible to every user of the machine, and only the sub-command is echoed in an error.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.errors import DeadlineExceeded, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEADLINE = 120.0
"""Seconds that a tool may take when the caller names no deadline of its own."""
TAIL = 4000
"""Characters of standard error that an error carries; its end is where tools say what went wrong."""


@dataclass(frozen=True)
class ToolOutput:
    """What a tool wrote; `stdout` may be a secret (sops), so neither is part of the repr."""

    stdout: str = field(repr=False)
    stderr: str = field(repr=False)


def run_tool(
    name: str,
    command: Sequence[str | Path],
    *,
    deadline: float = DEADLINE,
    env: Mapping[str, str | None] | None = None,
    stdin: str = "",
    cwd: Path | None = None,
    ok: Sequence[int] = (0,),
    remedy: str = "",
) -> ToolOutput:
    """Run a program and wait for its end.

    Args:
        name: the tool's own name, as errors say it: "helm", "sops"…
        command: the program's path and its arguments; no secrets here.
        deadline: seconds after which it is killed.
        env: added to the surroundings' environment (None takes a name out of it); secrets may stand here.
        stdin: given on standard input, which is empty otherwise (never the terminal's).
        cwd: the folder it starts in.
        ok: exit codes that are no failure.
        remedy: what helps if it fails, for the error.

    Returns:
        its output, as text.

    Raises:
        ToolFailed: it could not be started, or ended with another exit code; `detail` is the end of its standard error.
        DeadlineExceeded: it took longer than `deadline`.
    """
    what = _echo(name, command)
    around = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
    try:
        done = subprocess.run(
            [str(part) for part in command],
            input=stdin.encode(),
            capture_output=True,
            env=around,
            cwd=cwd,
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired:
        cause = "it waits for something that does not answer"
        raise DeadlineExceeded(f"{what} did not end within {deadline:g} s", cause=cause, remedy=remedy) from None
    except OSError as error:
        message = f"{what} could not be started: {error.strerror}"
        raise ToolFailed(message, system=name, remedy=remedy or "fluobook tools") from error
    output = ToolOutput(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if done.returncode not in ok:
        message, code = f"{what} ended with exit code {done.returncode}", str(done.returncode)
        raise ToolFailed(message, system=name, detail=output.stderr[-TAIL:], code=code, remedy=remedy)
    return output


def _echo(name: str, command: Sequence[str | Path]) -> str:
    """The tool and its sub-command, if that comes first: all of a command line that an error may show."""
    verb = str(command[1]) if len(command) > 1 else ""
    return f"{name} {verb}" if re.fullmatch(r"[a-z][a-z-]*", verb) else name
