"""kill -9 at every tenth action of an upgrade of Talos, and what the lab's own log says about it."""

from __future__ import annotations

import itertools

import pytest
from fluobook_lab import life

from fluobook import params
from fluobook.context import RunContext
from fluobook.journal.journal import Journal
from fluobook.redact import Redactor
from tests.run.test_kills import kill, until
from tests.stages.upgrade_talos import longhorn

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1700)]

ROOT = params.repository_root()
NOW = params.pins(ROOT)["talos"]
NEW = ".".join([*NOW.split(".")[:2], str(int(NOW.split(".")[2]) + 1)])
EVERY = 10
BOUND = 600
RUNS = 20


def context(lab):
    chosen, redactor = params.load("phase3", root=ROOT), Redactor()
    platform = params.overlay(chosen.platform, lab.overlay)
    return RunContext("phase3", platform, "lab", ROOT, lab.cluster_folder, redactor, Journal(None, redactor))


def begun(events):
    """How many actions of the upgrade have begun in a run."""
    return sum(event.get("stage") == "upgrade-talos" and event["event"] == "intent" for event in events)


def test_an_upgrade_that_is_killed_at_every_tenth_action_never_takes_two_nodes_away(operator, events_of, tmp_path):
    """Three control planes and three workers, with Longhorn, databases and the broker on them."""
    lab = operator.lab_up(phase="phase3", speed=100)
    done = operator.runs("run", "phase3", "--approve", "all", "--out", str(tmp_path / "begin"))
    assert done.returncode == 0, done.stdout + done.stderr
    seen = context(lab)
    seen.kube().create(longhorn.workload())
    until(lambda: any(volume["wanted"] == volume["healthy"] > 1 for volume in life.activity(lab)["volumes"]))
    start = life.activity(lab)["now"]
    command = ("run", "phase3", "upgrade-talos", "--approve", "all", f"--set=platform.versions.talos={NEW}", "--out")
    for number in itertools.count():
        assert number < RUNS
        out = tmp_path / f"upgrade-{number}"
        run = operator.starts(*command, str(out))
        until(lambda out=out, run=run: run.poll() is not None or begun(events_of(out)) >= EVERY, BOUND)
        if run.poll() is not None:
            break
        kill(run, alone=bool(number % 2))
    assert run.returncode == 0, run.communicate(timeout=BOUND)
    assert number >= 3
    activity = life.activity(lab)
    moments = [moment for moment in activity["nodes"] if moment["time"] > start]
    assert {moment["node"] for moment in moments} == {
        node["name"] for node in params.load("phase3", root=ROOT).platform.written["nodes"]
    }
    assert [moment for moment in moments if len(moment["away"]) > 1 or not moment["quorum"]] == []
    volumes = [volume for volume in activity["volumes"] if volume["time"] > start]
    assert {volume["healthy"] for volume in volumes if volume["wanted"] > 1} >= {2}  # replicas did come and go
    assert longhorn.left(seen.kube(), of_all=False) == []
    assert [volume for volume in volumes if volume["wanted"] > 1 and not volume["healthy"]] == []
    cycles = [r for r in activity["requests"] if r["at"] > start and r["path"].endswith("/status/reboot")]
    assert len(cycles) in (1, 2)  # a run that is killed between the request and its note makes it again
    second = operator.runs(*command, str(tmp_path / "second"))
    assert second.returncode == 0, second.stdout + second.stderr
    later = life.activity(lab)["requests"][len(activity["requests"]) :]
    assert [request for request in later if request["mutating"]] == []
    seen.close()
