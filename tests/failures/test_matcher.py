from __future__ import annotations

import pytest

from fluobook.errors import AccessDenied, DeadlineExceeded, FluobookError, OutsideError, TaskFailed, Unreachable
from fluobook.failures import diagnose


def codes(found: BaseException | str) -> list[str]:
    return [diagnosis.code for diagnosis in diagnose(found)]


def test_the_far_sides_own_words_are_read() -> None:
    error = TaskFailed("vm talos-cp-1 was not made", system="proxmox", detail="unable to parse lvm volume name '20G'")
    assert codes(error) == ["F13"]


def test_another_systems_error_is_not_taken_for_it() -> None:
    words = "x509: certificate signed by unknown authority"
    assert codes(Unreachable("no", system="talos", detail=words)) == ["F21"]
    assert codes(Unreachable("no", system="proxmox", detail=words)) == []


def test_a_bare_code_is_recognised_within_its_system() -> None:
    assert codes(AccessDenied("refused", system="proxmox", code="401")) == ["F01"]
    assert codes(AccessDenied("refused", system="kubernetes", code="401")) == []


def test_a_symptom_ranks_before_a_code() -> None:
    error = OutsideError("no", system="proxmox", code="500", detail="VM is locked (backup)")
    assert codes(error) == ["F07", "F08"]


def test_the_longer_symptom_ranks_first() -> None:
    text = "TASK ERROR: can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout"
    assert codes(text) == ["F07", "F09"]


def test_what_caused_an_error_is_read_too() -> None:
    with pytest.raises(DeadlineExceeded) as late:
        raise DeadlineExceeded("csr took longer than 600 s") from OutsideError(
            "no logs", system="kubernetes", detail="remote error: tls: internal error"
        )
    assert codes(late.value) == ["F46"]


def test_errors_that_cause_each_other_in_a_circle_are_read_once() -> None:
    first, second = FluobookError("VM is locked (backup)"), FluobookError("again")
    first.__cause__, second.__cause__ = second, first
    assert codes(first) == ["F07"]


def test_the_next_command_is_filled_from_the_symptom() -> None:
    assert diagnose("can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout")[0].next == "qm unlock 101"


def test_what_the_symptom_does_not_tell_is_left_to_the_reader() -> None:
    assert diagnose("VM is locked (backup)")[0].next == "qm unlock <vmid>"


def test_the_evidence_is_short_and_the_very_words() -> None:
    text = "403 Permission check failed (/storage/local, Datastore.AllocateTemplate)"
    diagnosis = diagnose(text)[0]
    assert diagnosis.evidence in text
    long = "failed calling webhook x " + "y" * 290 + " timeout"
    assert len(diagnose(long)[0].evidence) <= 160


def test_a_diagnosis_reads_as_title_cause_remedy_and_next() -> None:
    lines = str(diagnose("VM is locked (backup)")[0]).splitlines()
    assert lines[0] == "F07 The VM is locked by other work"
    assert [line.split()[0] for line in lines[1:]] == ["cause:", "remedy:", "next:"]


def test_what_is_unknown_gets_no_diagnosis() -> None:
    assert diagnose(FluobookError("something new")) == []
