"""The platform tree as tables."""

from __future__ import annotations

from fluobook.display.tree import matrix_table, sources_table, versions_table
from fluobook.gitops.reachability import Cell
from fluobook.gitops.versions import Pin, Row
from fluobook.kubernetes.policies import Verdict


def question(source: str, *, allowed: bool, row: int = 1) -> Cell:
    return Cell(source, "db", 5432, "TCP", Verdict(allowed, ()), row, "why" if row else "")


def test_a_cell_shows_whether_all_some_or_no_pods_of_a_namespace_may_connect():
    asked = [
        question("a", allowed=True),
        question("b", allowed=False, row=0),
        question("c", allowed=True),
        question("world", allowed=False, row=0),
    ]
    table = matrix_table(asked, {"a": "one", "b": "one", "c": "two", "world": "", "db": "three"})
    assert table.columns == ["pod", "port", "one", "two", "world"]
    assert [str(cell) for cell in table.rows[0]] == ["✓ db", "5432/TCP", "◐", "●", "·"]
    assert [str(cell) for cell in sources_table(asked, "db").rows[0]] == ["✓ 5432/TCP", "a, c", "why"]


def test_an_open_port_without_a_row_is_marked():
    table = matrix_table([question("a", allowed=True, row=0)], {"a": "one"})
    assert str(table.rows[0][0]) == "✗ db"
    assert "1 not answered as expected" in table.note


def test_column_names_are_short_and_different():
    asked = [question(name, allowed=True) for name in ("scylla", "scylla-operator", "monitoring")]
    assert matrix_table(asked, dict.fromkeys(("scylla", "scylla-operator", "monitoring"), "")).columns[2:] == [
        "moni",
        "scylla",
        "scylla-",
    ]


def test_versions_are_counted_by_distance():
    pin = Pin("longhorn", "chart", "1.0.0", "https://charts.example.org", "x")
    table = versions_table([Row(pin, "patch", "1.0.1", "1.0.1"), Row(pin, "newest", end="2026-01-01", ended=True)])
    assert table.note == "1 newest, 1 patch"
    assert str(table.rows[1][6]) == "✗ 2026-01-01"
