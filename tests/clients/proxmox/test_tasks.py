import pytest

from fluobook.clients.proxmox import TaskStatus, Upid
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
