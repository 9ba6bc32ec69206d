"""Watching: many events, few tables."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from fluobook.clients.kube import Change
from fluobook.display.table import Table
from fluobook.errors import Unreachable
from fluobook.stages.observe import watch
from fluobook.stages.observe.watch import follow, shared

BURST = 5_000


class Store:
    """Stands in for a cluster: reports changes from a thread of its own."""

    def __init__(self, events: int = 0, error: Unreachable | None = None) -> None:
        self.synced, self.stopped = threading.Event(), False
        self._events, self._error = events, error
        self.lists, self.error = 0, None

    def inform(self, _api, _kind, on_change, *, on_error):
        def report():
            self.synced.set()
            for number in range(self._events):
                on_change(Change("MODIFIED", {"number": number}))
            if self._error:
                self.error = self._error
                on_error(self._error)

        self.thread = threading.Thread(target=report, daemon=True)
        self.thread.start()
        return self

    def items(self):
        return []

    def list(self, *_what):
        self.lists += 1
        return []

    def stop(self, _seconds):
        self.stopped = True


class Drawn:
    """Remembers the tables that were drawn."""

    def __init__(self) -> None:
        self.live: list[bool] = []

    def __call__(self, objects, *, live=False, **_options):
        self.live.append(live)
        return Table("things", ["thing"], [[obj] for obj in objects])


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(watch, "interactive", lambda: True)
    monkeypatch.setattr(watch, "_open", {})


@pytest.mark.usefixtures("watched")
def test_a_burst_draws_nothing_by_itself_and_closing_ends_the_watch():
    store, drawn = Store(BURST), Drawn()
    live = follow(store, "v1", "Node", drawn)
    store.thread.join()
    assert drawn.live == []
    live.to_frame()
    assert drawn.live == [True]
    live.close()
    assert store.stopped


def test_nobody_watching_gets_one_table_without_ages(monkeypatch):
    monkeypatch.setattr(watch, "interactive", lambda: False)
    store, drawn = Store(), Drawn()
    assert repr(follow(store, "v1", "Node", drawn)) == "things"
    assert (store.lists, drawn.live) == (1, [False])


@pytest.mark.usefixtures("watched")
def test_a_lost_connection_is_reported_below_the_table_until_there_is_one_again():
    store = Store(1, Unreachable("the API does not answer", system="kubernetes"))
    live = follow(store, "v1", "Node", Drawn())
    store.thread.join()
    assert "connection lost: the API does not answer" in repr(live)
    store.error = None
    assert "connection lost" not in repr(live)


@pytest.mark.usefixtures("watched")
def test_a_cell_that_runs_again_shows_the_same_table_and_another_runbook_a_new_one():
    first, second = SimpleNamespace(), SimpleNamespace()

    def make():
        return follow(Store(), "v1", "Node", Drawn())

    live = shared("nodes", first, make)
    assert shared("nodes", first, make) is live
    other = shared("nodes", second, make)
    assert live.closed
    assert not other.closed
    other.close()
    assert shared("nodes", second, make) is not other
