"""Watching: many events, few tables; a person can interrupt it."""

from __future__ import annotations

import threading

from fluobook.clients.kube import Change
from fluobook.display.table import Table
from fluobook.errors import Unreachable
from fluobook.stages.observe import watch
from fluobook.stages.observe.watch import Pulse, follow

BURST = 5_000


class Store:
    """Stands in for a cluster: reports changes from a thread of its own."""

    def __init__(self, events: int = 0, error: Unreachable | None = None) -> None:
        self.synced, self.stopped = threading.Event(), False
        self._events, self._error = events, error
        self.lists = 0

    def inform(self, _api, _kind, on_change, *, on_error):
        def report():
            self.synced.set()
            for number in range(self._events):
                on_change(Change("MODIFIED", {"number": number}))
            if self._error:
                on_error(self._error)

        threading.Thread(target=report, daemon=True).start()
        return self

    def items(self):
        return []

    def list(self, *_what):
        self.lists += 1
        return []

    def stop(self):
        self.stopped = True


class Drawn:
    """Remembers the tables that were drawn."""

    def __init__(self) -> None:
        self.times: list[bool] = []

    def __call__(self, objects, *, now=None):
        self.times.append(now is not None)
        return Table("things", ["thing"], [[obj] for obj in objects])


def test_a_burst_is_absorbed_and_drawn_a_few_times(monkeypatch, capsys):
    monkeypatch.setattr(watch, "interactive", lambda: True)
    store, drawn = Store(BURST), Drawn()
    follow(store, "v1", "Node", drawn, seconds=2.0)
    # At entry, twice a second for two seconds, and at the end: never more, whatever the machine does meanwhile.
    assert len(drawn.times) <= 2 + 2 * 2 + 1
    assert f"{BURST} events" in capsys.readouterr().out
    assert store.stopped


def test_nobody_watching_gets_one_table_without_ages_or_counts(monkeypatch, capsys):
    monkeypatch.setattr(watch, "interactive", lambda: False)
    store, drawn = Store(), Drawn()
    follow(store, "v1", "Node", drawn, seconds=60)
    assert (store.lists, drawn.times) == (1, [False])
    assert capsys.readouterr().out == "things\n"


def test_a_lost_connection_is_reported_below_the_table(monkeypatch, capsys):
    monkeypatch.setattr(watch, "interactive", lambda: True)
    store = Store(1, Unreachable("the API does not answer", system="kubernetes"))
    follow(store, "v1", "Node", Drawn(), seconds=1.0)
    assert "connection lost: the API does not answer" in capsys.readouterr().out


def test_an_interrupt_ends_the_watch_quietly():
    pulse, drawn = Pulse(), []

    def draw():
        drawn.append(1)
        raise KeyboardInterrupt

    pulse.drive(draw, 60)
    assert drawn == [1]
