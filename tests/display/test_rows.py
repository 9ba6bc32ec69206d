"""A page receives the rows that it lacks and no others, and ends with the same rows as the kernel."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.display.rows import CHUNK, REMEMBERED, Rows, encoded, keyed
from fluobook.display.table import Cell, Table
from fluobook.display.widget import UNACKNOWLEDGED, TableWidget


def table(rows: dict[str, Any], note: str = "") -> Table:
    return Table("things", ["name", "value"], [[name, value] for name, value in rows.items()], note, key=("name",))


class Page:
    """What table.js does with messages."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.head: dict[str, Any] = {}
        self.revision = 0
        self.received = 0

    def receive(self, message: Any) -> None:
        if message["revision"] <= self.revision:
            return
        assert message["base"] <= self.revision, "an update was missed"
        if message["clear"]:
            self.rows.clear()
        self.head = json.loads(message["head"]) if message["head"] else self.head
        for key in json.loads(message["gone"]):
            self.rows.pop(key, None)
        for key, cells in json.loads(message["rows"]):
            self.rows[key] = cells[1]
            self.received += 1
        if message["last"]:
            self.revision = message["revision"]


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3)), min_size=1), st.data())
def test_a_page_that_asks_at_any_time_has_the_same_rows_as_the_kernel(states: list[dict[str, int]], data: Any) -> None:
    rows, page = Rows(), Page()
    for state in states:
        rows.put(table(state))
        if data.draw(st.booleans()) or state is states[-1]:
            for message in rows.since(page.revision):
                page.receive(message)
            assert page.rows == state


def test_only_changed_rows_travel() -> None:
    rows, page = Rows(), Page()
    values = {f"{n:04}": 0 for n in range(3 * CHUNK)}
    for change in ({}, {"0007": 1}, {"0008": 1, "0009": 1}):
        page.received = 0
        assert rows.put(table(values | change)) or not change
        for message in rows.since(page.revision):
            page.receive(message)
        values |= change
        assert page.received == (len(change) or len(values))
    assert page.rows == values
    assert not rows.put(table(values)), "an equal table is no change"


def test_a_page_that_is_too_far_behind_receives_everything_again() -> None:
    rows, page = Rows(), Page()
    rows.put(table({"old": 1}))
    for message in rows.since(0):
        page.receive(message)
    rows.put(table({str(n): 1 for n in range(REMEMBERED + 1)}))
    rows.put(table({"new": 1}))
    (message,) = rows.since(page.revision)
    page.receive(message)
    assert message["clear"]
    assert page.rows == {"new": 1}


def test_the_head_travels_when_it_has_changed() -> None:
    rows = Rows()
    rows.put(table({"a": 1}, "one"))
    revision = rows.revision
    rows.put(table({"a": 2}, "one"))
    assert next(iter(rows.since(revision)))["head"] == ""
    rows.put(table({"a": 2}, "two"))
    assert json.loads(next(iter(rows.since(revision)))["head"])["note"] == "two"


def test_rows_with_the_same_name_are_kept_apart() -> None:
    twice = Table("things", ["name"], [["a"], ["a"]], key=("name",))
    assert list(keyed(twice)) == ["a", "a\t1"]


@pytest.mark.parametrize(
    ("cell", "sent"),
    [
        (Cell("Ready", "ok"), ["✓ Ready", "ok", "", "Ready"]),
        (Cell("1", link="a.ipynb"), ["1", "", "a.ipynb", "1"]),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), {"t": 60.0}),
        (7, 7),
        (0.5, 0.5),
        (None, None),
        ("text", "text"),
    ],
)
def test_a_cell_is_sent_with_what_a_page_sorts_by(cell: Any, sent: Any) -> None:
    assert encoded(cell) == sent


def test_nothing_is_sent_before_a_page_asks_nor_long_after_the_last_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    widget = TableWidget()
    monkeypatch.setattr(widget, "send", sent.append)
    widget.put(table({"a": 0}))
    assert sent == []
    widget._asked(widget, {"since": 0}, [])
    assert [message["revision"] for message in sent] == [1]
    for number in range(1, UNACKNOWLEDGED + 10):
        widget.put(table({"a": number}))
    assert len(sent) == 1 + UNACKNOWLEDGED
    page = Page()
    widget._asked(widget, {"since": sent[-1]["revision"]}, [])
    for message in sent:
        page.receive(message)
    assert page.rows == {"a": UNACKNOWLEDGED + 9}


def test_no_row_is_in_the_state_that_a_notebook_may_save() -> None:
    widget = TableWidget()
    widget.put(table({"hunter2": 1}))
    assert "hunter2" not in json.dumps(widget.get_state(), default=str)
