"""kill -9 at any moment, then run again: it always ends converged, and nothing was done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from fluobook.lab import life

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

STAGES = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
BOUND = 120
DICE = random.Random(20261123)
MOMENTS = [(stage, DICE.randint(1, 9), DICE.random() * 0.4, alone) for stage in STAGES for alone in (False, True)]
"""The stage, how many events of it come before, how many seconds after that, and whether its kernel is left alone."""


def only(*stages):
    return [word for stage in stages for word in ("--only", stage)]


def kernels_of(pid):
    """Processes whose parent is that one: the kernel of the notebook at work."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found


def lives(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until(question, bound=BOUND):
    end = time.monotonic() + bound
    while not question():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def kill(run, *, alone):
    """End a run as a power cut does; with `alone`, its kernel is left behind."""
    kernels = kernels_of(run.pid)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(BOUND)
    for kernel in [] if alone else kernels:
        if lives(kernel):
            os.kill(kernel, signal.SIGKILL)
    return kernels


def test_a_run_that_is_killed_at_any_moment_converges_when_it_is_run_again(operator, events_of, tmp_path):
    lab = operator.lab_up(speed=40)
    bundles = set()
    bundle = lab.site_folder / "secrets.sops.yaml"
    for number, (stage, count, pause, alone) in enumerate(MOMENTS):
        out = tmp_path / f"run-{number}"
        run = operator.begins("run", "phase1", "--approve", "all", *only(stage), "--out", str(out))

        def came(out=out, run=run, stage=stage, count=count):
            told = [event for event in events_of(out) if event.get("stage") == stage and "action" in event]
            return run.poll() is not None or len(told) >= count

        until(came)
        time.sleep(pause)
        kernels = kill(run, alone=alone)
        until(lambda kernels=kernels: not any(map(lives, kernels)))
        if bundle.exists():
            bundles.add(bundle.read_bytes())
        if not alone:  # the next stage begins where this one was left
            continue
        done = operator.types(
            "run", "phase1", "--approve", "all", *only(stage), "--out", str(tmp_path / f"end-{number}")
        )
        assert done.returncode == 0, done.stdout + done.stderr
    bundles.add(bundle.read_bytes())
    done = operator.types("run", "phase1", *only(*STAGES), "--out", str(tmp_path / "last"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 actions" in done.stdout
    assert len(bundles) == 1
    story = life.story(lab)
    assert story["etcds"] == 1
    created = [r["path"] for r in story["requests"] if r["method"] == "POST" and r["path"].endswith("/qemu")]
    assert len(created) == 3
    assert not [r for r in story["requests"] if r["method"] == "DELETE" and "/qemu/" in r["path"]]
