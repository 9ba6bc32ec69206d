"""Builds the programs of the lab's real engine, each family from a small Go module with pinned versions.

Go cannot `go install` the control plane or Argo CD (their modules replace others), so a wrapper module names each as a
`tool`. What was built is kept outside the tree, in a folder whose name holds the pins and Go's version: it is built
again only when one of them changes. Programs on the PATH of the very version that is pinned are taken instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook_lab.engines import programs as engines

if TYPE_CHECKING:
    from fluobook_lab.engines.programs import Family

ROOT = Path(__file__).parents[1]
NICE = ["nice", "-n", "19"] if shutil.which("nice") else []


def main(names: list[str]) -> int:
    """Build what is missing of these families, or of all; returns the exit code."""
    families = [family for family in engines.FAMILIES if not names or family.name in names]
    failed = [family.name for family in families if not provide(family)]
    if failed:
        print(f"not built: {', '.join(failed)}")
    return 1 if failed else 0


def provide(family: Family) -> bool:
    """Build one family unless its programs are there."""
    present = engines.on_path(family, ROOT)
    if len(present) == len(family.programs):
        print(f"{family.name:<12} {family.version(ROOT):<10} on the PATH, nothing to build")
        return True
    folder = engines.folder(family, ROOT, go_version())
    if all((folder / name).exists() for name in family.programs):
        print(f"{family.name:<12} {family.version(ROOT):<10} built before, {folder}")
        return True
    return build(family, folder)


def build(family: Family, folder: Path) -> bool:
    """Build into a folder beside, and put it in its place when it is complete."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    for name, package in family.programs.items():
        began = time.monotonic()
        code = compiled(family, package, partial / name)
        took = time.monotonic() - began
        print(f"{family.name:<12} {family.version(ROOT):<10} {name} built in {took:.0f} s", flush=True)
        if code:
            shutil.rmtree(partial)
            return False
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return True


def compiled(family: Family, package: str, out: Path) -> int:
    """Run Go on one package; its exit code."""
    command = [*NICE, "go", "build", "-mod=readonly", "-buildvcs=false", "-p", str(parallel())]
    command += ["-ldflags", " ".join(["-s", "-w", *family.stamps(ROOT)]), "-o", str(out), package]
    where = engines.module(family, ROOT)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    return subprocess.run(command, cwd=where, env=environment, check=False).returncode


def parallel() -> int:
    """How many packages are compiled at once; half of the cores are left to whoever works here."""
    return int(os.environ.get("FLUOBOOK_BUILD_JOBS", max(1, (os.cpu_count() or 2) // 2)))


def go_version() -> str:
    """Such as go1.26.8."""
    try:
        version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"Go does not run ({error}): install Go, or put the programs on the PATH; `fluobook tools` lists them"
        raise SystemExit(message) from error
    return version.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
