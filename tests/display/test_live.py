"""A table is one finished output when nobody watches, and follows its source when somebody does."""

from __future__ import annotations

import pytest

from fluobook.display import live as module
from fluobook.display.kernel import interactive
from fluobook.display.live import Live
from fluobook.display.table import Table


@pytest.fixture
def shown(monkeypatch):
    tables = []
    monkeypatch.setattr(module, "show", lambda table: tables.append(table.text()))
    return tables


@pytest.fixture
def count():
    return {"n": 0}


@pytest.fixture
def render(count):
    return lambda: Table("table", ["n"], [[count["n"]]])


def test_headless_there_is_exactly_one_output_the_finished_one(shown, render, count):
    with Live(render, live=False) as live:
        for number in range(100):
            count["n"] = number
            live.touch()
    assert shown == ["table\nn\n99"]


def test_headless_the_last_state_is_shown_even_when_it_failed(shown, render, count):
    def work():
        with Live(render, live=False):
            count["n"] = 7
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        work()
    assert shown == ["table\nn\n7"]


def test_on_a_terminal_the_first_and_the_finished_table_are_printed(shown, render, count):
    with Live(render, live=True):
        count["n"] = 7
    assert shown == ["table\nn\n0", "table\nn\n7"]


def test_closing_ends_the_source_once(shown, render):
    live, ended = Live(render, live=True), []
    live.on_close.append(lambda: ended.append(1))
    live.close()
    live.close()
    assert live.closed
    assert ended == [1]
    assert len(shown) == 1


def test_a_frame_has_the_whole_table_even_when_it_is_drawn_in_parts(render):
    whole = Table("table", ["n"], [[1], [2]])
    frame = Live(render, live=True, whole=lambda: whole).to_frame()
    assert frame["n"].tolist() == [1, 2]
    assert str(frame["n"].dtype) == "Int64"


@pytest.mark.parametrize(("render", "expected"), [("live", True), ("final", False)])
def test_the_environment_variable_overrides_detection(monkeypatch, render, expected):
    monkeypatch.setenv("FLUOBOOK_RENDER", render)
    assert interactive() is expected


def test_outside_a_kernel_nobody_watches(monkeypatch):
    monkeypatch.delenv("FLUOBOOK_RENDER", raising=False)
    assert interactive() is False
