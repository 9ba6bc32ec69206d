"""The journal is on disk line by line, masked, and readable after a crash."""

from __future__ import annotations

import json
import threading

import pytest

from fluobook.journal import journal as journals
from fluobook.journal.journal import Journal
from fluobook.redact import MASK, Redactor

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
    assert json.loads(path.read_text()) == {"at": "now", "event": "planned", "stage": "create-vms", "actions": []}


class Odd:
    def __str__(self):
        return f"odd {SECRET}"


@pytest.mark.parametrize("value", [SECRET, {"a": [SECRET]}, {SECRET: 1}, Odd(), [Odd()]])
def test_secrets_are_masked_wherever_they_stand(journal, path, value):
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


def test_a_line_that_a_crash_cut_short_is_left_out_and_the_rest_is_read(journal, path):
    journal.write("one")
    with path.open("a") as file:
        file.write('{"event": "tor\n')
    journal.write("two")
    assert [event["event"] for event in journals.read(path)] == ["one", "two"]


def test_without_a_file_events_are_kept_in_memory():
    journal = Journal(None, Redactor())
    journal.write("one")
    assert [event["event"] for event in journal.events] == ["one"]
