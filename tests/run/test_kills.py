"""kill -9 at any moment, then run again: it always ends converged, and nothing was done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from fluobook_lab import life

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

STAGES = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
BOUND = 120
RANDOM = random.Random(20261123)
MOMENTS = [(stage, RANDOM.randint(3, most), RANDOM.random() * 0.5) for stage in STAGES[:3] for most in (12, 4)]
"""The stage, how many events of the run come before, and how many seconds after that."""
LATER = ("privileged-namespaces", "sops-age-key", "install-argocd", "root-application")
EARLY = [(stage, RANDOM.randint(2, 6)) for stage in LATER]
"""The stage, and how many of its own events come before: these are over in a moment."""


def kernels_of(pid):
    """The descendants of a process: the template process, and the kernel of the running notebook, which it forked."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    descendants, generation = [], {pid}
    while generation := {child for child, parent in parents.items() if parent in generation}:
        descendants += generation
    return descendants


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until(question, bound=BOUND):
    end = time.monotonic() + bound
    while not question():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def kill(run, *, alone):
    """End a run as a power cut does; with `alone`, its kernel and the template process must end by themselves."""
    kernels = kernels_of(run.pid)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait(BOUND)
    for kernel in [] if alone else kernels:
        with suppress(ProcessLookupError):
            os.kill(kernel, signal.SIGKILL)
    until(lambda: not any(map(is_running, kernels)))


def is_at(events, stage, count):
    return sum(event.get("stage") == stage for event in events) >= count


def test_a_run_that_is_killed_at_any_moment_converges_when_it_is_run_again(operator, events_of, tmp_path):
    lab = operator.lab_up(speed=30)
    bundle = lab.cluster_folder / "secrets.sops.yaml"
    bundles, killed = set(), 0
    for number, (stage, count, pause) in enumerate(MOMENTS):
        out, last = tmp_path / f"run-{number}", number % 2
        run = operator.starts("run", "phase1", "--approve", "all", "--only", stage, "--out", str(out))
        until(lambda out=out, run=run, count=count: run.poll() is not None or len(events_of(out)) >= count)
        time.sleep(pause)
        assert run.poll() in (None, 0), run.communicate(timeout=BOUND)  # on a busy machine a moment may come late
        killed += run.poll() is None
        kill(run, alone=bool(last))
        if bundle.exists():
            bundles.add(bundle.read_bytes())
        if last:
            end = str(tmp_path / f"end-{number}")
            further = ("--only", STAGES[3]) if stage == STAGES[2] else ()
            done = operator.runs("run", "phase1", "--approve", "all", "--only", stage, *further, "--out", end)
            assert done.returncode == 0, done.stdout + done.stderr
    assert killed > len(MOMENTS) // 2
    only = []
    for number, (stage, count) in enumerate(EARLY):
        out, only = tmp_path / f"later-{number}", [*only[-2:], "--only", stage]
        run = operator.starts("run", "phase1", "--approve", "all", *only, "--out", str(out))
        until(lambda out=out, run=run, at=(stage, count): run.poll() is not None or is_at(events_of(out), *at))
        kill(run, alone=True)
    end = operator.runs("run", "phase1", "--approve", "all", *only, "--out", str(tmp_path / "end"))
    assert end.returncode == 0, end.stdout + end.stderr
    assert bundles == {bundle.read_bytes()}
    plans = operator.runs("plan", "phase1")
    assert plans.returncode == 0, plans.stdout
    assert not list(bundle.parent.glob(".*"))  # nothing half written
    activity = life.activity(lab)
    assert activity["etcds"] == 1
    made = Counter(r["status"] for r in activity["requests"] if r["method"] == "POST" and r["path"].endswith("/qemu"))
    assert made == {200: 3}
    assert not [r for r in activity["requests"] if r["method"] == "DELETE" and "/qemu/" in r["path"]]


@pytest.mark.long
@pytest.mark.parametrize("faults", [["proxmox.version-8"], [], ["proxmox.version-9-2"]], ids=["8.4", "9.0", "9.2"])
def test_a_mesh_that_is_killed_at_any_moment_converges_when_it_is_run_again(operator, events_of, tmp_path, faults):
    lab = operator.lab_up(*faults, phase="phase3", speed=30)
    command = ("run", "phase3", "--approve", "all", "--only", "host-network", "--out")
    for number in range(4):
        out, count, pause = tmp_path / f"run-{number}", RANDOM.randint(3, 9), RANDOM.random()
        run = operator.starts(*command, str(out))
        until(
            lambda out=out, run=run, count=count: run.poll() is not None or is_at(events_of(out), "host-network", count)
        )
        time.sleep(pause)
        kill(run, alone=bool(number % 2))
    end = operator.runs(*command, str(tmp_path / "end"))
    assert end.returncode == 0, end.stdout + end.stderr
    before = len(life.activity(lab)["requests"])
    second = operator.runs(*command, str(tmp_path / "second"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert not [request for request in life.activity(lab)["requests"][before:] if request["mutating"]]


@pytest.mark.long
def test_a_rotation_that_is_killed_at_any_moment_goes_on_and_leaves_no_second_authority(operator, events_of, tmp_path):
    """Both authorities, one after the other; the record beside the bundle is there exactly as long as it is needed."""
    lab = operator.lab_up(speed=200)
    done = operator.runs("run", "phase1", "--approve", "all", "--out", str(tmp_path / "begin"))
    assert done.returncode == 0, done.stdout + done.stderr
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    wanted = [f"--set=platform.rotate.{name}='{now}'" for name in ("talos_ca", "kubernetes_ca")]
    command, folder = ("run", "phase1", "certificates", "--approve", "all", *wanted, "--out"), lab.cluster_folder
    for number in range(6):
        out, count, pause = tmp_path / f"run-{number}", RANDOM.randint(4, 14), RANDOM.random()
        run = operator.starts(*command, str(out))
        until(
            lambda out=out, run=run, count=count: run.poll() is not None or is_at(events_of(out), "certificates", count)
        )
        time.sleep(pause)
        kill(run, alone=bool(number % 2))
        for file in folder.glob("*.sops.yaml"):
            assert "PRIVATE" not in file.read_text()
    end = operator.runs(*command, str(tmp_path / "end"))
    assert end.returncode == 0, end.stdout + end.stderr
    assert [file.name for file in folder.glob("*.sops.yaml")] == ["secrets.sops.yaml"]
    plans = operator.runs("plan", "phase1")
    assert plans.returncode == 0, plans.stdout
    before = len(life.activity(lab)["requests"])
    second = operator.runs(*command, str(tmp_path / "second"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert not [request for request in life.activity(lab)["requests"][before:] if request["mutating"]]
