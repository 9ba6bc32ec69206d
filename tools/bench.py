"""Prints what stage 1 costs: wall time as a ratio to the lab's critical path and to a plain script, requests a machine.

Nothing here is a test: times depend on the machine. For each size a lab is started, the stage applied and run again;
then a second lab, for a script that does the same as plainly as can be, as many at once.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook_lab import life
from plain import bring_up

from fluobook import params
from fluobook.context import POLICIES, RunContext, open_context
from fluobook.lab import programs as lab_programs
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue
from fluobook.stages.core.plan import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SIZES = (3, 20, 100)
SPEED = 2.0


HEAD = """\
          critical          plain            requests   again
 VMs   wall   path  ratio   script  ratio    a VM   asked  seconds"""


def main(sizes: tuple[int, ...]) -> int:
    """Measure each size; returns the exit code."""
    os.environ["FLUOBOOK_RENDER"] = "final"
    print(HEAD)
    for size in sizes:
        print(measure(size), flush=True)
    return 0


def measure(size: int) -> str:
    """One line of figures for a platform of `size` machines."""
    chosen = platform_of(size)
    with lab_of(chosen) as lab:
        first = timed(chosen)
        activity = life.activity(lab)
        asked = len(proxmox(activity))
        path = sum(seconds for _, seconds in activity["critical_path"]["create-vms"]) / SPEED
        again = timed(chosen)
        more = len(proxmox(life.activity(lab))) - asked
    with lab_of(chosen):
        plain = scripted(site_of(chosen))
    figures = f"{first:7.2f}{path:7.2f}{first / path:7.2f}{plain:9.2f}{first / plain:7.2f}"
    return f"{size:>4}{figures}{asked / size:8.1f}{more:>8}{again:9.2f}"


@contextmanager
def lab_of(chosen: params.Params) -> Iterator[life.Lab]:
    """A new lab, which the runs of this process use."""
    folder = Path(tempfile.mkdtemp(prefix="fluobook-bench-"))
    lab = life.start(chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=SPEED)
    os.environ["FLUOBOOK_LAB"] = str(folder)
    try:
        yield lab
    finally:
        life.end(lab, forget=True)


def site_of(chosen: params.Params) -> RunContext:
    """The platform on that lab."""
    return open_context(chosen, root=ROOT, target="lab", redactor=Redactor())


def timed(chosen: params.Params) -> float:
    """Seconds that planning, applying and verifying stage 1 take."""
    context = site_of(chosen)
    stage = stage_run(
        catalogue.find("create-vms"),
        context,
        Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name),
    )
    began = time.monotonic()
    with redirect_stdout(io.StringIO()):  # tables are not what is measured
        stage.apply(stage.plan())
        stage.verify()
    return time.monotonic() - began


def scripted(context: RunContext) -> float:
    """Seconds that the plain script takes, with as many at once as stage 1 has."""
    began = time.monotonic()
    bring_up(context, (catalogue.find("create-vms").widths or {})["proxmox"])
    return time.monotonic() - began


def proxmox(activity: dict[str, Any]) -> list[Any]:
    """The requests to Proxmox VE."""
    return [request for request in activity["requests"] if request["server"].startswith("proxmox")]


def platform_of(size: int) -> params.Params:
    """Phase 1 with as many workers as it takes."""
    written = dict(params.load("phase1", root=ROOT).platform.written)
    control, worker, *_ = written["nodes"]
    workers = [{**worker, "name": f"talos-worker-{n}", "address": f"10.10.1.{n}"} for n in range(1, size)]
    network = {**written["network"], "cidr": "10.10.0.0/16"}
    return params.parse(
        {"phase": "phase1", "platform": {**written, "network": network, "nodes": [control, *workers]}}, root=ROOT
    )


if __name__ == "__main__":
    sys.exit(main(tuple(map(int, sys.argv[1:])) or SIZES))
