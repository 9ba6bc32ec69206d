"""The hash chain: a run that was altered, torn or cut says so, and where."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from fluobook.journal import chain
from fluobook.journal.journal import Journal, read
from fluobook.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Lines = list[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of six lines, by two processes, that ended; with one notebook."""
    (tmp_path / "01_create_vms.ipynb").write_text("{}")
    path = tmp_path / "events.jsonl"
    first, second = Journal(path, Redactor()), Journal(path, Redactor())
    first.write("run-started", phase="phase1", target="lab", stages=["create-vms"])
    for number in (2, 3, 4):
        second.write("evidence", stage="create-vms", upid=f"UPID {number} ä")
    ended = {"notebook": "01_create_vms.ipynb", "sha256": chain.notebook_hash(tmp_path / "01_create_vms.ipynb")}
    first.write("notebook-ended", stage="create-vms", **ended)
    first.write("run-ended", exit_code=0)
    first.close()
    second.close()
    return tmp_path


def altered(lines: Lines, number: int) -> Lines:
    """The lines with another value in one of them, its own hash of the line before kept."""
    event = json.loads(lines[number - 1])
    changed = json.dumps(event | {"at": "2020-01-01T00:00:00.000+00:00"})
    return [*lines[: number - 1], changed, *lines[number:]]


def unchained(lines: Lines) -> Lines:
    return [json.dumps({k: v for k, v in json.loads(line).items() if k != chain.FIELD}) for line in lines]


CASES: list[tuple[str, Callable[[Lines], Lines], list[str]]] = [
    ("as written", lambda lines: lines, []),
    ("altered", lambda lines: altered(lines, 3), ["line 3 was altered, or lines between it and line 4 were removed"]),
    ("first altered", lambda lines: altered(lines, 1), ["line 1 was altered, or lines between it and line 2 were"]),
    ("last altered", lambda lines: altered(lines, 6), ["line 6, the last one, has another hash than the summary"]),
    (
        "removed",
        lambda lines: [*lines[:2], *lines[3:]],
        ["line 2 was altered, or lines between it and line 3 were removed", "1 of 6 lines were removed"],
    ),
    ("begin cut", lambda lines: lines[2:], ["lines before line 1 were cut off", "2 of 6 lines were removed"]),
    ("end cut", lambda lines: lines[:4], ["2 of 6 lines were removed; the journal ends with line 4"]),
    ("twice", lambda lines: [*lines[:3], lines[2], *lines[3:]], ["line 4 is a copy of line 3"]),
    ("thrice", lambda lines: [*lines[:3], lines[2], lines[2], *lines[3:]], ["lines 4 to 5 are copies of line 3"]),
    ("appended to itself", lambda lines: lines * 2, ["lines 7 to 12 are copies of lines 1 to 6"]),
    ("swapped", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], ["line 2 belongs after line 3"]),
    ("moved up", lambda lines: [*lines[:2], lines[4], *lines[2:4], lines[5]], ["line 3 belongs after line 5"]),
    ("moved down", lambda lines: [lines[0], *lines[2:4], lines[1], *lines[4:]], ["line 2 belongs after line 4"]),
    ("in CR LF", lambda lines: [f"{line}\r" for line in lines], ["the ends of the journal's lines were changed"]),
    ("with blank lines", lambda lines: [part for line in lines for part in (line, "")], ["the ends of the journal's"]),
    (
        "written by a formatter",
        lambda lines: [json.dumps(json.loads(line), sort_keys=True) for line in lines[:5]] + lines[5:],
        [*[f"line {n} was altered, or lines between it and line {n + 1}" for n in range(1, 5)], "in 1 more places"],
    ),
    ("another event", lambda lines: [*lines[:2], '{"event": "x"}', *lines[2:]], ["line 3 was inserted or altered"]),
    (
        "inserted",
        lambda lines: [*lines[:2], *altered(lines, 2)[1:2], *lines[2:]],
        ["lines were inserted before line 4, after line 2"],
    ),
    ("no event", lambda lines: [*lines[:2], "{", *lines[3:]], ["line 3 was altered: it is no event"]),
    (
        "no hash",
        lambda lines: [*lines[:2], '{"event": "x"}', *lines[3:]],
        ["line 3 was inserted or altered"],
    ),
    ("added", lambda lines: [*lines, '{"event": "x"}'], ["line 7 was inserted", "lines were added after line 6, with"]),
    ("hashes removed", unchained, ["the journal was altered: its lines have no hashes, but the summary has one"]),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_changed_journal_is_named_with_the_place(
    run: Path, change: Callable[[Lines], Lines], expected: list[str]
) -> None:
    path = run / "events.jsonl"
    head = chain.head(path)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    problems = chain.problems(run, head)
    assert len(problems) == len(expected), problems
    assert [text for text, begin in zip(problems, expected, strict=True) if not text.startswith(begin)] == []


def test_a_journal_of_an_earlier_version_is_without_a_chain(run: Path) -> None:
    path = run / "events.jsonl"
    path.write_text("\n".join(unchained(path.read_text().splitlines())))
    assert chain.problems(run, None) == [
        "the journal is without a chain, as earlier versions wrote it: it cannot be verified"
    ]
    path.write_text("")
    assert chain.problems(run, chain.Head()) == ["the journal is empty"]


def test_half_a_line_of_a_killed_process_is_torn_and_costs_no_other_line(run: Path) -> None:
    path = run / "events.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:3]) + content[3][:40])
    torn = "line 4 is torn: the process that wrote it was killed"
    assert chain.problems(run, None)[0] == torn
    journal = Journal(path, Redactor())
    journal.write("run-ended", exit_code=1)
    journal.close()
    assert [event["event"] for event in read(path)] == ["run-started", "evidence", "evidence", "run-ended"]
    assert chain.problems(run, chain.head(path)) == [torn]
    assert chain.problems(run, None)[1] == "no summary has the hash of line 5, the last one: it cannot be verified"


def test_a_killed_run_has_no_end_and_a_provisional_summary_is_no_end(run: Path) -> None:
    path = run / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    head = chain.head(path)
    path.write_text("".join(lines[:5]))
    for recorded in (head, None):
        assert chain.problems(run, recorded) == [
            "the journal has no end after line 5: the run still works, was killed, or was cut off"
        ]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("01_create_vms.ipynb", "01_create_vms.ipynb was altered after the run"),
        ("gone", "01_create_vms.ipynb cannot be read: No such file or directory"),
    ],
)
def test_a_notebook_that_is_not_as_the_run_left_it_is_named(run: Path, name: str, problem: str) -> None:
    if name == "gone":
        (run / "01_create_vms.ipynb").unlink()
    else:
        (run / name).write_text("{ }")
    assert chain.problems(run, chain.head(run / "events.jsonl")) == [problem]


def test_threads_and_processes_write_one_chain(run: Path) -> None:
    path = run / "events.jsonl"
    path.unlink()
    journals = [Journal(path, Redactor()) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda journal=journal: [journal.write("evidence", text="x" * 5000) for _ in range(20)])
        for journal in [*journals, *journals]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    journals[0].write("run-ended")
    assert chain.head(path).lines == 121
    assert chain.problems(run, chain.head(path)) == []


@pytest.mark.parametrize("value", [5, None, [], {}, ["x"], "../secret.ipynb", "/etc/passwd"])
def test_an_altered_journal_is_named_whatever_it_contains(run: Path, value: object) -> None:
    path = run / "events.jsonl"
    event = {"event": "notebook-ended", "notebook": "01_create_vms.ipynb", "sha256": "", chain.FIELD: ""}
    altered = [json.dumps({**event, name: value}) for name in event for _ in range(9)]
    path.write_text("\n".join([*altered, "{"]))
    problems = chain.problems(run, None)
    assert any(
        problem.startswith(("line 2 was", "lines 2 to ")) or "before line 2" in problem for problem in problems[:2]
    )
    assert len(problems) < chain.MOST_BREAKS + 4
    assert not any("secret" in problem or "passwd" in problem for problem in problems)


def test_a_begin_that_was_cut_off_is_named_although_the_end_is_torn(run: Path) -> None:
    path = run / "events.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:4], "{torn"]))
    assert chain.problems(run, None)[0] == "lines before line 1 were cut off"
