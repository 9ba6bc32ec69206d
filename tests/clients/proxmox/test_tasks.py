"""Tasks: ids, states, and the interval at which they are polled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.clients.proxmox import TaskStatus, Upid
from fluobook.clients.proxmox.tasks import EARLY, Pace, poll_interval
from fluobook.errors import Rejected

TEXT = "UPID:pve2:0003C7E4:01A3F0C1:66A5B3C4:qmcreate:110:fluobook@pve!fluobook:"


def test_a_upid_names_the_node_that_runs_the_task():
    upid = Upid.parse(TEXT)
    assert (upid.node, upid.type, upid.id, upid.user) == ("pve2", "qmcreate", "110", "fluobook@pve!fluobook")
    assert upid.started == 0x66A5B3C4
    assert str(upid) == TEXT


@pytest.mark.parametrize("text", ["", "UPID:pve2:", "OK", TEXT[:-1], TEXT + "x", TEXT.replace("pve2", "")])
def test_what_is_no_upid_is_refused(text):
    with pytest.raises(Rejected, match="not the id of a task"):
        Upid.parse(text)


@pytest.mark.parametrize(
    ("data", "running", "ok"),
    [
        ({"status": "running"}, True, False),
        ({"status": "stopped", "exitstatus": "OK"}, False, True),
        ({"status": "stopped", "exitstatus": "WARNINGS: 2"}, False, True),
        ({"status": "stopped", "exitstatus": "command 'x' failed"}, False, False),
        ({"status": "stopped"}, False, False),
    ],
)
def test_only_ok_and_warnings_are_success(data, running, ok):
    status = TaskStatus.read(Upid.parse(TEXT), data)
    assert (status.running, status.ok) == (running, ok)


def test_a_listed_task_without_an_end_still_runs():
    assert TaskStatus.listed({"upid": TEXT}).running
    assert TaskStatus.listed({"upid": TEXT, "endtime": 1, "status": "OK"}).ok


SECONDS = st.floats(min_value=0, max_value=1e6)


@given(SECONDS, SECONDS)
def test_a_task_of_unknown_duration_is_polled_less_and_less_often(waited, since):
    assert 0.1 <= poll_interval(waited, since) <= 1.0
    assert poll_interval(waited, since) <= poll_interval(waited + 1, since + 1)


def polls(pace, kind, lasts):
    """How often a task of that duration is polled, and how late its end is noticed."""
    waited, count = 0.0, 0
    while waited < lasts:
        waited += pace.pause(kind, waited)
        count += 1
    return count, waited - lasts


def test_a_task_of_known_duration_is_not_polled_before_it_can_have_ended():
    pace = Pace()
    unknown, _ = polls(pace, "qmcreate", 7.4)
    for seconds in (7.0, 7.8):
        pace.learn("qmcreate", seconds)
    assert pace.pause("qmcreate", 0.0) == EARLY * 7.4
    known, late = polls(pace, "qmcreate", 7.4)
    assert known <= 3 < unknown
    assert late < 0.1 * 7.4
    assert polls(pace, "qmstart", 7.4)[0] == unknown


@given(st.floats(min_value=0.01, max_value=600), st.floats(min_value=0.01, max_value=600))
def test_the_end_of_a_task_that_takes_longer_than_usual_is_noticed_soon(usual, lasts):
    pace = Pace()
    pace.learn("download", usual)
    _, late = polls(pace, "download", lasts)
    assert late <= max(0.1, EARLY * usual, lasts / 15) + 1e-6
