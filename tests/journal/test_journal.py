"""The journal is on disk line by line, masked, and readable after a crash; the summary is computed from it."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest

from fluobook.context import beginning_of
from fluobook.errors import BadFile
from fluobook.journal import journal as journals
from fluobook.journal.journal import Journal, StageSummary, summarise
from fluobook.params import load, repository_root
from fluobook.redact import MASK, Redactor

EVENTS = [
    {"event": "outcome", "stage": "create-vms", "result": "done"},
    {"event": "outcome", "stage": "create-vms", "result": "failed"},
    {"event": "outcome", "stage": "another", "result": "done"},
    {"event": "verified", "stage": "create-vms", "checks": [{"passed": False}]},
    {"event": "verified", "stage": "create-vms", "checks": [{"passed": True}, {"passed": False}]},
]
SECRET = "correct-horse-battery"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.fixture
def journal(path):
    redactor = Redactor()
    redactor.add(SECRET)
    journal = Journal(path, redactor, clock=lambda: "now")
    yield journal
    journal.close()


def test_an_event_is_in_the_file_when_write_returns(journal, path):
    journal.write("planned", stage="create-vms", actions=[])
    line = {"at": "now", "event": "planned", "stage": "create-vms", "actions": [], "previous": ""}
    assert json.loads(path.read_text()) == line


def test_an_event_is_synced_to_the_disk_when_write_returns(journal, path, monkeypatch):
    synced = []

    def fsync(descriptor):
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        synced.append(path.read_text().count("\n"))

    monkeypatch.setattr(os, "fsync", fsync)
    for lines in (1, 2, 3):
        journal.write("evidence")
        assert synced == list(range(1, lines + 1))


@pytest.mark.parametrize("written", [0, 3, None])
def test_a_full_disk_names_the_journal(journal, monkeypatch, written):
    def full(_descriptor, _data):
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BadFile, match=r"events\.jsonl cannot be written: No space left on device"):
        journal.write("evidence")


class Odd:
    def __str__(self):
        return f"odd {SECRET}"


@pytest.mark.parametrize("value", [SECRET, {"a": [SECRET]}, {SECRET: 1}, Odd(), [Odd()]])
def test_secrets_are_masked_wherever_they_occur(journal, path, value):
    journal.write("evidence", value=value)
    assert SECRET not in path.read_text()
    assert MASK in path.read_text()


def test_two_processes_write_to_one_file(journal, path):
    other = Journal(path, Redactor())
    journal.write("one")
    other.write("two")
    journal.write("three")
    other.close()
    assert [event["event"] for event in journals.read(path)] == ["one", "two", "three"]


def test_threads_do_not_mix_their_lines(journal, path):
    threads = [
        threading.Thread(target=lambda n=n: [journal.write(f"{n}", text="x" * 9000) for _ in range(10)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(journals.read(path)) == 40


def test_a_line_that_a_crash_truncated_is_skipped_and_the_rest_is_read(journal, path):
    journal.write("one")
    with path.open("a") as file:
        file.write('{"event": "tor\n')
    journal.write("two")
    assert [event["event"] for event in journals.read(path)] == ["one", "two"]


def test_without_a_file_events_are_kept_in_memory():
    journal = Journal(None, Redactor())
    journal.write("one")
    assert [event["event"] for event in journal.events] == ["one"]


def test_actions_that_were_done_count_even_where_the_stage_failed():
    summary = summarise("create-vms", "01.ipynb", EVENTS, status="failed", seconds=1.0, exit_code=1)
    assert (summary.actions, summary.checks, summary.total) == (1, 1, 2)
    assert summary.line() == "✗ create-vms                1 action   1/2  checks     1.0 s"


def test_a_stage_that_did_not_run_says_so():
    summary = StageSummary("create-vms", "01.ipynb")
    assert summary.status == "not run"
    assert summary.line().startswith("· create-vms")


def test_a_journal_in_memory_can_be_kept_in_a_file_with_what_it_has_so_far(path):
    journal = Journal(None, Redactor())
    journal.write("planned", stage="create-vms", digest="63155a")
    journal.keep(path, "run-started", phase="phase1", target="lab", stages=["create-vms"])
    journal.write("verified", stage="create-vms", ok=True, checks=[{"passed": True}])
    journal.close()
    assert [event["event"] for event in journals.read(path)] == ["run-started", "planned", "verified"]
    assert journals.read(path)[1]["digest"] == "63155a"
    summary = journals.read_record(path.parent).summary
    assert [(stage.stage, stage.status, stage.checks) for stage in summary.stages] == [("create-vms", "done", 1)]


@pytest.mark.parametrize("phase", ["phase1", "phase2", "phase3"])
def test_the_beginning_of_a_run_is_read_as_it_was_written(journal, path, phase):
    """Without it a run has no phase, no versions and no person; a field of an unexpected type makes it no event."""
    root = repository_root()
    platform = load(phase, root=root).platform
    begun = beginning_of(phase, platform, ["preflight"], root=root, target="live", lab=None)
    journal.write("run-started", **begun)
    read = journals.beginning(journals.read(path))
    assert (read["phase"], read["target"], read["versions"]) == (phase, "live", begun["versions"])
