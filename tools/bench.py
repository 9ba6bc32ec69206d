"""Prints what stage 1 costs, as ratios: wall time to the lab's critical path, requests to virtual machines.

Nothing here is a test: times depend on the machine. For each size a lab is started, the stage applied and run again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fluobook import params
from fluobook.lab import life
from fluobook.redact import Redactor
from fluobook.runbook import Book, lab_programs, open_site
from fluobook.stages.core.gate import Approval, Gate

ROOT = Path(__file__).parents[1]
SIZES = (3, 20, 100)
SPEED = 2.0


def main(sizes: tuple[int, ...]) -> int:
    """Measure each size; returns the exit code."""
    os.environ["FLUOBOOK_RENDER"] = "final"
    print("VMs, wall and critical path in seconds, their ratio, requests a VM; requests and seconds of a second run")
    for size in sizes:
        print(measure(size), flush=True)
    return 0


def measure(size: int) -> str:
    """One line of figures for a platform of `size` machines."""
    chosen = platform_of(size)
    folder = Path(tempfile.mkdtemp(prefix="fluobook-bench-"))
    lab = life.start(chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=SPEED)
    os.environ["FLUOBOOK_LAB"] = str(folder)
    try:
        first = timed(chosen)
        story = life.story(lab)
        asked = len(proxmox(story))
        path = sum(seconds for _, seconds in story["critical_path"]["create-vms"]) / SPEED
        again = timed(chosen)
        more = len(proxmox(life.story(lab))) - asked
    finally:
        life.end(lab, forget=True)
    return f"{size:>4} {first:7.2f} {path:7.2f} {first / path:6.2f} {asked / size:12.1f} {more:>16} {again:8.2f}"


def timed(chosen: params.Params) -> float:
    """Seconds that planning, applying and verifying stage 1 take."""
    site = open_site(chosen, root=ROOT, target="lab", redactor=Redactor())
    stage = Book(site, Gate(Approval.parse("all"), "lab", site.platform.cluster.name)).stage("create-vms")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (tables are not what is measured)
    began = time.monotonic()
    try:
        stage.apply(stage.plan())
        stage.verify()
    finally:
        sys.stdout = sys.__stdout__
    return time.monotonic() - began


def proxmox(story: dict[str, Any]) -> list[Any]:
    """The requests to Proxmox VE."""
    return [request for request in story["requests"] if request["server"].startswith("proxmox")]


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
