"""`fluobook doctor`: whether this machine and this environment can run fluobook. Changes nothing."""

from __future__ import annotations

import datetime as dt
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fluobook import lab as labs
from fluobook import params
from fluobook.clients.tools import inventory
from fluobook.environment import cache_folder
from fluobook.errors import FluobookError, NotFound
from fluobook.files import read_yaml
from fluobook.machine import access
from fluobook.stages.core.check import Check

OLDEST_PYTHON = (3, 11)
PORTS = 24
"""Ports of loopback that a lab of phase 3 needs."""
SHOWN = 5
"""Different packages that are listed."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def examine(root: Path) -> list[Check]:
    """Every check.

    Args:
        root: the repository.
    """
    return [
        _python(),
        _system(),
        *_tools(),
        _environment(root / "requirements.lock"),
        writable("home", params.home(), "set FLUOBOOK_HOME to a writable folder"),
        writable("cache", cache_folder(), "set FLUOBOOK_CACHE to a writable folder"),
        writable("runs", root / "runs", "make the repository's folder writable, or name another folder with --out"),
        _ports(),
        *_labs(),
        *_access_files(),
        _browser(),
    ]


def _python() -> Check:
    ok = sys.version_info >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    result = f"{platform.python_version()} at {sys.executable}"
    return Check("python", ok, result, f"make PYTHON=python{wanted} rehearse, with Python {wanted} or newer")


def _system() -> Check:
    result = f"{platform.system()} {platform.machine()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        result += "; kubectl and helm are taken from the PATH"
    return Check("system", passed=True, result=result)


def _tools() -> Iterator[Check]:
    for tool in inventory():
        if tool.version:
            yield Check(tool.name, passed=True, result=f"{tool.version} ({tool.source}) at {tool.path}")
        else:
            remedy = f"put {tool.name} on the PATH, or run `make clean rehearse`"
            yield Check(tool.name, passed=False, result=tool.source, remedy=remedy)


def _environment(lock: Path) -> Check:
    different = list(differences(lock.read_text())) if lock.exists() else ["there is no requirements.lock"]
    result = "; ".join(different[:SHOWN]) or f"{sys.prefix} matches requirements.lock"
    more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return Check("packages", not different, result + more, "run `make clean rehearse`, which installs the lock again")


def differences(lock: str) -> Iterator[str]:
    """How the packages of this environment differ from a lock's text; packages for other systems are ignored."""
    versions = {canonicalize_name(package.name): package.version for package in metadata.distributions()}
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        try:
            wanted = Requirement(line.split("--hash")[0].strip())
        except InvalidRequirement:
            continue  # a comment or an option
        if wanted.marker is None or wanted.marker.evaluate():
            name = canonicalize_name(wanted.name)
            if name not in versions or not wanted.specifier.contains(versions[name], prereleases=True):
                yield f"{name} is {versions.get(name, 'missing')}, not {str(wanted.specifier)[2:]}"


def writable(name: str, folder: Path, remedy: str) -> Check:
    """Whether files can be created in a folder, or in its first parent that exists."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(name, passed=False, result=f"{folder}: {error.strerror}", remedy=remedy)
    return Check(name, passed=True, result=f"{folder} is writable")


def _ports() -> Check:
    bound: list[socket.socket] = []
    try:
        bound += [socket.create_server(("127.0.0.1", 0)) for _ in range(PORTS)]
    except OSError as error:
        result = f"no free port on 127.0.0.1: {error.strerror}"
        return Check("loopback", passed=False, result=result, remedy="ip link set lo up; ulimit -n 1024")
    finally:
        for server in bound:
            server.close()
    return Check("loopback", passed=True, result=f"{PORTS} ports on 127.0.0.1 are free")


def _labs() -> Iterator[Check]:
    try:
        find = labs.provider().find
    except NotFound as error:
        yield Check("labs", passed=True, result=error.message)
        return
    folders = sorted(path for path in (params.home() / "lab").glob("*") if path.is_dir())
    up = {folder: lab for folder in folders if (lab := find(folder))}
    listed = ", ".join(f"{folder.name} is up, process {lab.pid}" for folder, lab in up.items())
    yield Check("labs", passed=True, result=listed or "none is up")
    for folder in folders:
        if folder not in up and (folder / "lab.json").exists():
            result = (
                f"the lab of {folder.name} ended without cleaning up; `fluobook lab up {folder.name}` starts a new one"
            )
            yield Check("labs", passed=True, result=result)


def _access_files() -> Iterator[Check]:
    """How long the client certificates of the kubeconfigs and talosconfigs on this machine still last."""
    now = dt.datetime.now(dt.UTC)
    for name in ("kubeconfig", "talosconfig"):
        for path in sorted([*params.home().glob(f"*/{name}"), *params.home().glob(f"lab/*/cluster/{name}")]):
            cluster = f"{path.parents[1].name} (lab)" if path.parent.name == "cluster" else path.parent.name
            remedy = f"run the stage bootstrap-kubernetes of {cluster}: it writes the file again"
            try:
                credential = access.credential(next(iter(read_yaml(path)), None))
                problem, expires = credential.problem(now), credential.expires
            except FluobookError as error:
                yield Check(name, passed=False, result=f"{path}: {error.message}", remedy=remedy)
                continue
            lasts = f"lasts {access.remaining(expires, now)}, until {expires:%Y-%m-%d}"
            yield Check(name, not problem, f"of {cluster} {problem or lasts}", remedy)


def _browser() -> Check:
    path = next(filter(None, map(shutil.which, BROWSERS)), "")
    return Check("browser", passed=True, result=path or "no Chromium; only the tests in tests/browser need one")
