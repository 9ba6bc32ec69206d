import pytest

from fluobook.clients.https import is_passing
from fluobook.clients.proxmox import ProxmoxEndpoint, Upid, VmLocked
from fluobook.clients.proxmox.session import refusal, task_failure
from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, TaskFailed, Unreachable
from fluobook.failures import present

ENDPOINT = ProxmoxEndpoint(
    name="laptop", url="https://192.0.2.5:8006", token_id="fluobook@pve!fluobook", token_secret="the-secret-of-it"
)
UPID = Upid.parse("UPID:pve1:0003C7E4:01A3F0C1:66A5B3C4:qmcreate:110:fluobook@pve!fluobook:")


def refused(status: int, text: str, errors: dict[str, str] | None = None) -> OutsideError:
    return refusal(status, text, errors or {}, doing="do it", endpoint=ENDPOINT)


@pytest.mark.parametrize(
    ("status", "text", "kind", "repeat"),
    [
        (401, "authentication failure", AccessDenied, False),
        (401, "no such token 'x' for user 'y'", AccessDenied, False),
        (403, "Permission check failed (/, Sys.Audit|Sys.Modify)", AccessDenied, False),
        (400, "Parameter verification failed.", Rejected, False),
        (404, "Not Found", NotFound, False),
        (500, "unable to create VM 8001 - VM 8001 already exists on node 'pve2'", Conflict, False),
        (500, "unable to create VM 8001: config file already exists", Conflict, False),
        (500, "can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout", VmLocked, False),
        (500, "VM is locked (snapshot-delete)", VmLocked, False),
        (500, "got no worker upid - start worker failed", OutsideError, True),
        (500, "got timeout", OutsideError, True),
        (500, "", OutsideError, True),
        (501, "Method 'GET /x' not implemented", Rejected, False),
        (503, "Service Unavailable", Unreachable, True),
        (595, "No route to host", Unreachable, True),
        (596, "Connection timed out", Unreachable, True),
        (500, "storage 'x' does not exist", NotFound, False),
        (500, "storage 'local-lvm' does not support content type 'iso'", Rejected, False),
        (500, "detected modified configuration - file changed by other user? Try again.", Conflict, False),
        (500, "VM 110 is running - destroy failed", Rejected, False),
    ],
)
def test_each_answer_has_its_error_and_is_transient_or_not(status, text, kind, repeat):
    error = refused(status, text)
    assert type(error) is kind
    assert is_passing(error) is repeat
    assert error.code == str(status)
    assert "the-secret-of-it" not in present(error).text()


def test_every_missing_privilege_of_an_answer_is_in_the_remedy():
    error = refused(403, "Permission check failed (/vms/110, VM.Config.Disk)")
    assert "VM.Config.Disk on /vms;" in error.cause
    assert "pveum acl modify /vms --tokens 'fluobook@pve!fluobook' --roles fluobook-vms" in error.remedy
    vague = refused(403, "Permission check failed")
    assert "00_preflight" in vague.remedy


def test_wrong_parameters_are_in_the_message():
    error = refused(400, "Parameter verification failed.", {"net0": "invalid format\nnet0.macaddr: wrong\n"})
    assert "net0: invalid format net0.macaddr: wrong" in error.message


def test_a_failed_task_has_its_log_and_an_explanation():
    error = task_failure(UPID, "unable to create VM 110 - lvcreate failed: insufficient free space", ("a", "b"))
    assert isinstance(error, TaskFailed)
    assert (error.detail, present(error).failure) == ("a\nb", "F64 The storage is full")
    assert "qmcreate 110 on pve1" in error.message


def test_a_task_that_ended_at_a_lock_is_a_locked_vm():
    error = task_failure(UPID, "VM is locked (backup)", ())
    assert isinstance(error, VmLocked)
    assert error.lock == "backup"


def test_an_endpoint_never_shows_its_secret():
    assert "the-secret-of-it" not in repr(ENDPOINT)
    assert ENDPOINT.target.name == "192.0.2.5:8006"
