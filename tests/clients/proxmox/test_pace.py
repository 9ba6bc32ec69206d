"""How often a task is asked for: a pure question of what is known of its kind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluobook.clients.proxmox.pace import EARLY, Pace, poll_interval

SECONDS = st.floats(min_value=0, max_value=1e6)


@given(SECONDS, SECONDS)
def test_the_unknown_is_asked_ever_less_often_within_bounds(waited, since):
    assert 0.1 <= poll_interval(waited, since) <= 1.0
    assert poll_interval(waited, since) <= poll_interval(waited + 1, since + 1)


def looks(pace, kind, lasts):
    """How often a task is looked at that lasts so long, and how much too late its end is seen."""
    waited, count = 0.0, 0
    while waited < lasts:
        waited += pace.pause(kind, waited)
        count += 1
    return count, waited - lasts


def test_what_is_known_to_take_long_is_not_asked_for_before_it_can_be_done():
    pace = Pace()
    stranger, _ = looks(pace, "qmcreate", 7.4)
    for seconds in (7.0, 7.8):
        pace.learn("qmcreate", seconds)
    assert pace.pause("qmcreate", 0.0) == EARLY * 7.4
    known, late = looks(pace, "qmcreate", 7.4)
    assert known <= 3 < stranger
    assert late < 0.1 * 7.4
    assert looks(pace, "qmstart", 7.4)[0] == stranger


@given(st.floats(min_value=0.01, max_value=600), st.floats(min_value=0.01, max_value=600))
def test_a_task_that_takes_longer_than_its_like_is_seen_to_end_soon_after(usual, lasts):
    pace = Pace()
    pace.learn("download", usual)
    _, late = looks(pace, "download", lasts)
    assert late <= max(0.1, EARLY * usual, lasts / 15) + 1e-6
