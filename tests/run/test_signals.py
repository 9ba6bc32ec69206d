"""SIGTERM and SIGINT end a run: the record is complete and correct."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from fluobook.run.signals import Interrupted, Signals

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
BOUND = 120


def until(question, bound=BOUND):
    end = time.monotonic() + bound
    while not question():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_interrupts_the_running_cell_and_the_record_is_correct(operator, events_of, tmp_path, number, code):
    operator.lab_up(speed=2)  # so slow that stage 1 still runs
    out = tmp_path / "run"
    run = operator.starts("run", "phase1", "--approve", "all", "--from", "create-vms", "--out", str(out))
    until(lambda: run.poll() is not None or any(event["event"] == "evidence" for event in events_of(out)))
    assert run.poll() is None, run.communicate(timeout=BOUND)
    os.kill(run.pid, number)
    output, _ = run.communicate(timeout=BOUND)
    assert run.returncode == code, output
    assert f"{signal.Signals(number).name} interrupted 01_create_vms.ipynb; run it again" in output
    assert "Traceback" not in output
    events = events_of(out)
    assert [e["signal"] for e in events if e["event"] == "interrupted" and "signal" in e] == [
        signal.Signals(number).name
    ]
    assert [e["running"] for e in events if e["event"] == "interrupted" and e.get("stage") == "create-vms"]
    assert events[-1] == {**events[-1], "event": "run-ended", "exit_code": code}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["exit_code"] == code
    assert [stage["status"] for stage in summary["stages"]][:3] == ["interrupted", "not run", "not run"]
    assert "create-vms" in (out / "report.html").read_text()
    notebook = nbformat.read(out / "01_create_vms.ipynb", as_version=4)
    codes = [cell.metadata.papermill["status"] for cell in notebook.cells if cell.cell_type == "code"]
    assert codes == ["completed", "completed", "completed", "completed", "failed", "pending"]


def test_a_signal_between_two_cells_is_not_lost():
    signals = Signals()
    with signals.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: signals.caught is not None)
        with pytest.raises(Interrupted, match="SIGTERM"):
            signals.check()
        with pytest.raises(Interrupted):
            signals.cell_started(object())
    assert signals.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_before_a_run_begins_is_told():
    code = "import os, fluobook.cli as cli; cli.run = lambda _: os.kill(os.getpid(), 15); cli.main(['run', 'phase1'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, "ended by SIGTERM\n")
