"""Run folders are never overwritten, files are written atomically, and one run holds the lock of a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from fluobook.errors import FluobookError, Locked
from fluobook.journal.folder import cluster_lock, named_folder, new_folder, newest_first

BOUND = 20
HOLD = """
import sys, time
from pathlib import Path
from fluobook.journal.folder import cluster_lock
with cluster_lock(Path(sys.argv[1]), patience=5):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_in_one_second_get_different_folders(tmp_path):
    folders = [new_folder(tmp_path, "phase1") for _ in range(3)]
    assert len(set(folders)) == 3
    assert newest_first(tmp_path)[0] in folders


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(FluobookError, match="is not empty"):
        named_folder(tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FluobookError, match="is not a folder"):
        named_folder(tmp_path / "file")


def test_an_empty_folder_and_a_new_one_are_accepted(tmp_path):
    assert named_folder(tmp_path / "a" / "b").is_dir()
    assert named_folder(tmp_path / "a" / "b").is_dir()


def test_without_runs_there_is_no_newest_one(tmp_path):
    assert newest_first(tmp_path) == []
    assert newest_first(tmp_path / "missing") == []


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_learns_who_holds_the_lock_and_gives_up_after_its_timeout(tmp_path, holder):
    reported = []
    with (
        pytest.raises(Locked, match=f"process {holder.pid} holds the lock"),
        cluster_lock(tmp_path, patience=0.3, on_wait=reported.append),
    ):
        pass
    assert reported == [f"process {holder.pid}"]


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    threading.Timer(0.3, holder.send_signal, [signal.SIGKILL]).start()
    with cluster_lock(tmp_path, patience=BOUND):
        assert (tmp_path / "lock").read_text().startswith("process ")
    assert holder.wait(BOUND) == -signal.SIGKILL


def test_the_lock_is_released_after_an_error(tmp_path):
    def work():
        with cluster_lock(tmp_path, patience=1):
            raise ValueError("bad")

    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            work()
