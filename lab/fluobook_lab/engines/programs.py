"""Finds the programs of the lab's real engine: etcd, the control plane, KWOK, Argo CD with its tools, redis.

Each family has a Go module under tools/engines with its pins. A program on the PATH is used if it has the pinned
version, else the one that `make engines` built. Nothing is built here.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.errors import ToolFailed
from fluobook.params import cache_folder
from fluobook_lab.data import table

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

ENGINES = "tools/engines"


@dataclass(frozen=True)
class Family:
    """Programs that are built from one Go module.

    Args:
        name: of the folder below tools/engines.
        pin: the required module whose version they have.
        programs: each program's name and package.
        purpose: what is missing without them.
        variables: Go variables that are stamped; `{version}`, `{major}` and `{minor}` are filled in.
        ask: the arguments that print a program's version.
    """

    name: str
    pin: str
    programs: dict[str, str]
    purpose: str
    variables: dict[str, str] = field(default_factory=dict)
    ask: Sequence[str] = ("--version",)

    def version(self, root: Path) -> str:
        """The pinned version, such as 1.35.4."""
        text = (module(self, root) / "go.mod").read_text()
        match = re.search(rf"^(?:require |\t){re.escape(self.pin)} v(\S+)", text, re.MULTILINE)
        if match is None:
            raise ToolFailed(f"{module(self, root)}/go.mod does not require {self.pin}", system=self.name)
        return match[1]

    def stamps(self, root: Path) -> list[str]:
        """Linker flags for the variables."""
        version = self.version(root)
        major, minor, *_ = version.split(".")
        filled = {k: v.format(version=version, major=major, minor=minor) for k, v in self.variables.items()}
        return [word for name, value in filled.items() for word in ("-X", f"{name}={value}")]


FAMILIES = tuple(Family(**entry) for entry in table("engines/programs.yaml"))


@dataclass(frozen=True)
class Engine:
    """A program of the real engine: name, family, path (None if missing), version, source and purpose."""

    name: str
    family: str
    path: Path | None
    version: str
    source: str
    purpose: str


def module(family: Family, root: Path) -> Path:
    """The Go module with the family's pins."""
    return root / ENGINES / family.name


def key(family: Family, root: Path) -> str:
    """A short hash of a family's pins, own sources and stamps."""
    names = ["go.mod", "go.sum", *sorted(path.name for path in module(family, root).glob("*.go"))]
    parts = [(module(family, root) / name).read_bytes() for name in names]
    parts.append(" ".join(family.stamps(root)).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def folder(family: Family, root: Path, go: str) -> Path:
    """The folder for what this Go version builds from these pins."""
    return cache_folder() / "engines" / f"{family.name}-{key(family, root)}-{go}"


def built(family: Family, root: Path) -> dict[str, Path]:
    """The programs that were built from these pins, by any Go version."""
    kept = cache_folder() / "engines"
    for built_by in sorted(kept.glob(f"{family.name}-{key(family, root)}-*"), reverse=True):
        programs = {name: built_by / name for name in family.programs}
        if all(path.exists() for path in programs.values()):
            return programs
    return {}


def on_path(family: Family, root: Path) -> dict[str, Path]:
    """The operator's own programs of the pinned version."""
    paths = {name: shutil.which(name) for name in family.programs}
    wanted = family.version(root)
    return {name: Path(path) for name, path in paths.items() if path and wanted in version_text(path, family.ask)}


def find(root: Path) -> list[Engine]:
    """Every program of the real engine, also missing ones."""
    engines = []
    for family in FAMILIES:
        own, made, version = on_path(family, root), built(family, root), family.version(root)
        for name in family.programs:
            path = own.get(name) or made.get(name)
            source = "PATH" if name in own else "make engines" if path else "missing: `make engines` builds it"
            engines.append(Engine(name, family.name, path, version if path else "", source, family.purpose))
    return [*engines, _redis()]


def programs(root: Path, *, needed: Container[str] | None = None) -> dict[str, str]:
    """The path of each program that the real engine runs.

    Args:
        root: the repository.
        needed: families that are required, such as "kubernetes"; all, if not given.

    Raises:
        ToolFailed: some are missing; the message names them.
    """
    engines = find(root)
    if missing := [e for e in engines if e.path is None and (needed is None or e.family in needed)]:
        raise ToolFailed(
            f"the real engine needs {', '.join(e.name for e in missing)}",
            system="engines",
            cause="they are neither on the PATH in the pinned version, nor built",
            remedy="run `make engines`; redis-server is the operating system's (Debian: apt install redis-server)",
        )
    return {e.name: str(e.path) for e in engines if e.path}


def _redis() -> Engine:
    path = shutil.which("redis-server")
    match = re.search(r"v=(\S+)", version_text(path, ("--version",))) if path else None
    source = "PATH" if path else "missing: install the package redis-server"
    return Engine(
        "redis-server", "redis", Path(path) if path else None, match[1] if match else "", source, "Argo CD's cache"
    )


def version_text(program: str, ask: Sequence[str]) -> str:
    """What a program prints about its version; "" if it cannot be asked."""
    try:
        return subprocess.run([program, *ask], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
