"""Programs that know nothing of fluobook, each in an environment of its own below the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys

from fluobook.clients import wheel

BOUND, BUILD_BOUND = 120, 840


def environment(name: str, *packages: str) -> str:
    """The interpreter of an environment with these packages, made if it is not there."""
    folder = wheel.cache_folder() / "second-opinions" / name
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=BOUND)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(pip, check=True, timeout=300)
        (folder / ".complete").touch()
    return str(python)


def go_program(package: str, version: str) -> str:
    """A program built from a Go package of this version, if it is not there."""
    folder = wheel.cache_folder() / "second-opinions" / f"{package.rpartition('/')[2]}-{version}"
    program = folder / package.rpartition("/")[2]
    if not program.exists():
        settings = {"GOBIN": str(folder), "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
        install = ["go", "install", f"{package}@{version}"]
        subprocess.run(install, check=True, timeout=BUILD_BOUND, env=os.environ | settings)
    return str(program)


def alone() -> dict[str, str]:
    """An environment in which nothing of ours is on the path of modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
