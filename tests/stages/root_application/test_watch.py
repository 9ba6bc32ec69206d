"""The watch of stage 8 on the Applications while the API is away."""

from __future__ import annotations

import pytest

from fluobook.errors import Unreachable
from fluobook.stages.root_application import work

AWAY = Unreachable("10.10.0.10:6443 refused the connection", system="kubernetes", code="refused")


class Api:
    """Stands in for a cluster without Applications; `errors` are the states of the connection, one for each look."""

    def __init__(self, *errors: Unreachable | None) -> None:
        self._errors = list(errors)

    def list(self, *_what):
        return []

    def inform(self, *_what, **_selection):
        return self

    @property
    def error(self) -> Unreachable | None:
        return self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]

    def stop(self) -> None:
        pass


def test_a_wait_without_a_connection_ends_with_its_error_long_before_the_deadline(monkeypatch):
    monkeypatch.setattr(work, "SILENCE", 0.0)
    watch = work.ApplicationWatch(Api(AWAY), seconds=3600)
    with watch.joined(), pytest.raises(Unreachable) as caught:
        watch.wait(lambda _snapshot: False)
    assert caught.value is AWAY


def test_a_wait_outlasts_a_short_loss_of_the_connection(monkeypatch):
    monkeypatch.setattr(work, "INTERVAL", 0.0)
    watch, checks = work.ApplicationWatch(Api(None, AWAY, AWAY, None), seconds=3600), []
    with watch.joined():
        assert watch.wait(lambda _snapshot: checks.append(1) or len(checks) == 5)


def test_a_second_wait_knows_nothing_of_the_first(monkeypatch):
    monkeypatch.setattr(work, "SILENCE", 60.0)
    watch = work.ApplicationWatch(Api(AWAY), seconds=3600)
    with watch.joined():
        watch.in_vain["loki"] = "InvalidImageName"
    with watch.joined():
        assert watch.in_vain == {}
        assert watch.wait(lambda _snapshot: True)


def test_a_watch_that_could_not_start_starts_for_the_next_waiter():
    api, lists = Api(None), [AWAY, []]

    def answer(*_what):
        result = lists.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    api.list = answer
    watch = work.ApplicationWatch(api, seconds=3600)
    with pytest.raises(Unreachable), watch.joined():
        pass
    with watch.joined():
        assert watch.wait(lambda _snapshot: True)
    assert lists == []
