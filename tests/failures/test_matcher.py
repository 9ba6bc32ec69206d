from __future__ import annotations

import pytest

from fluobook.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    FluobookError,
    NotFound,
    OutsideError,
    TaskFailed,
    Unreachable,
)
from fluobook.failures import explain


def codes(error: BaseException | str) -> list[str]:
    return [match.failure.code for match in explain(error)]


def test_the_systems_answer_is_searched() -> None:
    error = TaskFailed("vm talos-cp-1 was not made", system="proxmox", detail="unable to parse lvm volume name '20G'")
    assert codes(error) == ["F13"]


def test_another_systems_error_is_not_taken_for_it() -> None:
    words = "x509: certificate signed by unknown authority"
    assert codes(Unreachable("no", system="talos", detail=words)) == ["F21"]
    assert codes(Unreachable("no", system="proxmox", detail=words)) == []


def test_a_bare_code_is_recognised_within_its_system() -> None:
    assert codes(AccessDenied("refused", system="proxmox", code="401")) == ["F01"]
    assert codes(AccessDenied("refused", system="kubernetes", code="401")) == ["F132"]
    assert codes(AccessDenied("refused", system="argocd", code="401")) == []


def test_a_symptom_ranks_before_a_code() -> None:
    error = OutsideError("no", system="proxmox", code="500", detail="VM is locked (backup)")
    assert codes(error) == ["F07", "F08"]


def test_the_longer_symptom_ranks_first() -> None:
    text = "TASK ERROR: can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout"
    assert codes(text) == ["F07", "F09"]


def test_the_cause_of_an_error_is_searched_too() -> None:
    with pytest.raises(DeadlineExceeded) as late:
        raise DeadlineExceeded("csr took longer than 600 s") from OutsideError(
            "no logs", system="kubernetes", detail="remote error: tls: internal error"
        )
    assert codes(late.value) == ["F46"]


def test_errors_that_cause_each_other_in_a_circle_are_searched_once() -> None:
    first, second = FluobookError("VM is locked (backup)"), FluobookError("again")
    first.__cause__, second.__cause__ = second, first
    assert codes(first) == ["F07"]


def test_the_next_command_is_filled_from_the_symptom() -> None:
    assert explain("can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout")[0].next == "qm unlock 101"


def test_a_next_command_with_an_unknown_value_is_not_shown() -> None:
    assert explain("VM is locked (backup)")[0].next == ""


def test_the_first_command_whose_values_are_all_known_is_shown() -> None:
    facts = {"kind": "ConfigMap", "name": "a"}
    error = Conflict("no", system="kubernetes", code="Conflict", facts=facts)
    assert (
        explain(error, "phase1")[0].next == "fluobook kubectl phase1 -- get ConfigMap a --show-managed-fields -o yaml"
    )
    error.facts["namespace"] = "web"
    assert explain(error, "phase1")[0].next.startswith("fluobook kubectl phase1 -- -n web get ConfigMap a ")


def test_an_entry_reads_as_title_causes_remedy_and_next() -> None:
    lines = explain("VM is locked (backup)")[0].failure.text().splitlines()
    assert lines[0] == "F07 The VM is locked by other work"
    assert [line.split()[0] for line in lines[1:]] == ["cause:", "cause:", "remedy:", "next:", "seen"]


def test_a_class_is_used_only_if_nothing_more_specific_matches() -> None:
    error = NotFound("no", system="kubernetes", code="NoMatch")
    assert codes(error) == ["F83"]
    assert codes(NotFound("no", system="kubernetes", code="NotFound")) == ["F82"]


def test_the_next_command_is_filled_from_the_errors_facts() -> None:
    error = OutsideError("no", system="talos", code="ALREADY_EXISTS", facts={"address": "10.10.0.10"})
    assert explain(error, "phase2")[0].next == "fluobook talosctl phase2 -- etcd members --nodes 10.10.0.10"


def test_an_unknown_error_matches_nothing() -> None:
    assert explain(FluobookError("something new")) == []


def test_a_foreign_exception_belongs_to_the_system_of_the_error_that_it_caused() -> None:
    with pytest.raises(Unreachable) as refused:
        raise Unreachable("no", system="kubernetes", code="CERTIFICATE") from OSError("self-signed certificate")
    assert codes(refused.value) == ["F86"]
