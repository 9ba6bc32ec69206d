"""One run at a time: the second waits, is told for whom, and goes on when the first one is gone, however it went."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from fluobook.errors import Locked
from fluobook.journal.lock import cluster_lock

BOUND = 20
HOLD = """
import sys, time
from pathlib import Path
from fluobook.journal.lock import cluster_lock
with cluster_lock(Path(sys.argv[1]), patience=5):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_told_who_is_at_work_and_gives_up_in_the_end(tmp_path, holder):
    told = []
    with (
        pytest.raises(Locked, match=f"process {holder.pid} holds the lock"),
        cluster_lock(tmp_path, patience=0.3, on_wait=told.append),
    ):
        pass
    assert told == [f"process {holder.pid}"]


def test_a_killed_holder_keeps_nobody_out(tmp_path, holder):
    threading.Timer(0.3, holder.send_signal, [signal.SIGKILL]).start()
    with cluster_lock(tmp_path, patience=BOUND):
        assert (tmp_path / "lock").read_text().startswith("process ")
    assert holder.wait(BOUND) == -signal.SIGKILL


def test_the_lock_is_given_back_after_an_error(tmp_path):
    def work():
        with cluster_lock(tmp_path, patience=1):
            raise ValueError("bad")

    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            work()
