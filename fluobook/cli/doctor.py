"""`fluobook doctor`: whether this machine and this environment are fit to run fluobook; it changes nothing."""

from __future__ import annotations

import platform
import re
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fluobook import lab as labs
from fluobook import params
from fluobook.clients import payload
from fluobook.clients.tools import inventory
from fluobook.display.table import GLYPHS
from fluobook.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLDEST_PYTHON = (3, 11)
PORTS = 24
"""How many ports of loopback are tried: what a lab of phase 3 takes."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Look:
    """One thing that was looked at: what it is, whether it will do, what was seen, and what helps if it will not."""

    name: str
    ok: bool
    seen: str
    remedy: str = ""

    def text(self) -> str:
        """The look on one line; with its remedy below where it is needed."""
        line = f"{GLYPHS['ok' if self.ok else 'bad']} {self.name:<12} {self.seen}"
        return line if self.ok or not self.remedy else f"{line}\n  remedy: {self.remedy}"


def examine(root: Path) -> list[Look]:
    """Every look.

    Args:
        root: the repository.
    """
    return [
        _python(),
        _system(),
        *_tools(),
        _environment(root / "requirements.lock"),
        writable("home", params.home(), "set FLUOBOOK_HOME to a folder that is yours"),
        writable("cache", payload.cache_folder(), "set FLUOBOOK_CACHE to a folder that is yours"),
        writable("runs", root / "runs", "make the repository's folder writable, or name another with --out"),
        _ports(),
        *_labs(),
        _browser(),
    ]


def _python() -> Look:
    ok = sys.version_info >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    seen = f"{platform.python_version()} at {sys.executable}"
    return Look("python", ok, seen, f"make PYTHON=python{wanted} rehearse, with Python {wanted} or newer")


def _system() -> Look:
    seen = f"{platform.system()} {platform.machine()}"
    own = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    return Look("system", ok=True, seen=seen if own else f"{seen}; kubectl and helm are taken from the PATH here")


def _tools() -> Iterator[Look]:
    for tool in inventory():
        if tool.version:
            yield Look(tool.name, ok=True, seen=f"{tool.version} ({tool.source}) at {tool.path}")
        else:
            yield Look(
                tool.name,
                ok=False,
                seen=tool.source,
                remedy=f"put {tool.name} on the PATH, or type `make clean rehearse`",
            )


def _environment(lock: Path) -> Look:
    wrong = list(unlike(lock.read_text())) if lock.exists() else ["there is no requirements.lock"]
    seen = f"{sys.prefix} is as requirements.lock says" if not wrong else "; ".join(wrong[:5])
    more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""  # noqa: PLR2004 (as many as are shown)
    return Look("packages", not wrong, seen + more, "make clean rehearse, which installs the lock anew")


def unlike(lock: str) -> Iterator[str]:
    """In what the packages of this environment differ from a lock's text; packages for other systems do not count."""
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        try:
            wanted = Requirement(line.split("--hash")[0].strip())
        except InvalidRequirement:
            continue  # a comment or an option
        if wanted.marker is None or wanted.marker.evaluate():
            installed = _installed(wanted.name)
            if not installed or not wanted.specifier.contains(installed, prereleases=True):
                yield f"{canonicalize_name(wanted.name)} is {installed or 'missing'}, not {str(wanted.specifier)[2:]}"


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def writable(name: str, folder: Path, remedy: str) -> Look:
    """Whether files can be made in a folder, or in what is there of the way to it."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Look(name, ok=False, seen=f"{folder}: {error.strerror}", remedy=remedy)
    return Look(name, ok=True, seen=f"{folder} is writable")


def _ports() -> Look:
    bound: list[socket.socket] = []
    try:
        bound += [socket.create_server(("127.0.0.1", 0)) for _ in range(PORTS)]
    except OSError as error:
        return Look(
            "loopback",
            ok=False,
            seen=f"no port of 127.0.0.1: {error.strerror}",
            remedy="ip link set lo up; ulimit -n 1024",
        )
    finally:
        for one in bound:
            one.close()
    return Look("loopback", ok=True, seen=f"{PORTS} ports of 127.0.0.1 can be taken")


def _labs() -> Iterator[Look]:
    try:
        find = labs.provider().find
    except NotFound as error:
        yield Look("labs", ok=True, seen=error.message)
        return
    folders = sorted(one for one in (params.home() / "lab").glob("*") if one.is_dir())
    up = {folder: lab for folder in folders if (lab := find(folder))}
    yield Look(
        "labs", ok=True, seen=", ".join(f"{f.name} is up, process {lab.pid}" for f, lab in up.items()) or "none is up"
    )
    for folder in folders:
        if folder not in up and (folder / "lab.json").exists():
            seen = f"the lab of {folder.name} has ended without cleaning up"
            yield Look("labs", ok=True, seen=f"{seen}; `fluobook lab up {folder.name}` starts a new one")


def _browser() -> Look:
    found = next(filter(None, map(shutil.which, BROWSERS)), "")
    return Look("browser", ok=True, seen=found or "no Chromium; only the tests in tests/browser want one")
