"""A table is one finished output when nobody watches, and changes in place when somebody does."""

from __future__ import annotations

import pytest

from fluobook.display import live as module
from fluobook.display.kernel import interactive
from fluobook.display.live import Live
from fluobook.display.table import Table


class Screen:
    """Stands in for the notebook: records displays and updates."""

    def __init__(self):
        self.displayed, self.updated = [], []

    def __call__(self, table, **_options):
        self.displayed.append(table.text())
        return self

    def update(self, table):
        self.updated.append(table.text())


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(module, "show", screen)
    return screen


@pytest.fixture
def count():
    return {"n": 0}


@pytest.fixture
def render(count):
    return lambda: Table("table", ["n"], [[count["n"]]])


def test_headless_there_is_exactly_one_output_the_finished_one(screen, render, count):
    with Live(render, live=False) as live:
        for number in range(100):
            count["n"] = number
            live.touch()
    assert screen.displayed == [Table("table", ["n"], [[99]]).text()]
    assert screen.updated == []


def test_headless_the_last_state_is_shown_even_when_it_failed(screen, render, count):
    def work():
        with Live(render, live=False):
            count["n"] = 7
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        work()
    assert len(screen.displayed) == 1
    assert screen.displayed[0].endswith("7")


def test_a_watched_table_changes_in_place_at_most_twice_a_second(screen, render, count):
    clock = Clock()
    with Live(render, live=True, clock=clock) as live:
        for number in range(1, 101):
            count["n"], clock.seconds = number, clock.seconds + 0.1
            live.touch()
    assert len(screen.displayed) == 1
    assert len(screen.updated) <= 10 * 2 + 1
    assert screen.updated[-1].endswith("100")


def test_an_unchanged_table_is_not_painted_again(screen, render):
    clock = Clock()
    with Live(render, live=True, clock=clock) as live:
        for _ in range(10):
            clock.seconds += 10
            live.touch()
    assert (len(screen.displayed), len(screen.updated)) == (1, 0)


def test_a_change_after_a_pause_is_shown_at_once(screen, render, count):
    clock = Clock()
    with Live(render, live=True, clock=clock) as live:
        clock.seconds += 0.1
        live.touch()
        clock.seconds += 0.5
        count["n"] = 1
        live.touch()
        assert len(screen.updated) == 1


@pytest.mark.parametrize(("render", "expected"), [("live", True), ("final", False)])
def test_the_environment_variable_overrides_detection(monkeypatch, render, expected):
    monkeypatch.setenv("FLUOBOOK_RENDER", render)
    assert interactive() is expected


def test_outside_a_kernel_nobody_watches(monkeypatch):
    monkeypatch.delenv("FLUOBOOK_RENDER", raising=False)
    assert interactive() is False
