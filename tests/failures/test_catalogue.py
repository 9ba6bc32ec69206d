from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook.errors import OutsideError
from fluobook.failures import catalogue, diagnose

CASES: dict[str, list[Any]] = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())
EACH = [pytest.param(code, case, id=f"{code}-{number}") for code in CASES for number, case in enumerate(CASES[code])]


def test_the_catalogue_is_complete() -> None:
    assert [failure.code for failure in catalogue()] == [f"F{number:02}" for number in range(1, 64)]


def test_every_failure_has_a_case() -> None:
    assert list(CASES) == [failure.code for failure in catalogue()]
    assert all(CASES.values())


@pytest.mark.parametrize(("code", "case"), EACH)
def test_a_symptom_is_recognised_before_all_others(code: str, case: Any) -> None:
    found = case if isinstance(case, str) else error_of(case)
    assert [diagnosis.code for diagnosis in diagnose(found)][:1] == [code]


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.code)
def test_every_failure_says_what_why_and_what_now(failure: Any) -> None:
    assert failure.symptoms
    assert all([failure.title, failure.cause, failure.remedy, failure.next])
    assert failure.cause.endswith(".")
    assert failure.remedy.endswith(".")
    assert len(failure.title) < 80


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.code)
def test_every_symptom_has_something_of_its_own_to_match(failure: Any) -> None:
    assert not any(re.search(symptom, "") for symptom in failure.symptoms)


HARMLESS = [
    "",
    "TASK OK",
    "status: stopped, exitstatus: OK",
    '"exitstatus": "WARNINGS: 1"',
    "scsihw: virtio-scsi-single",
    "balloon: 0",
    "cilium is Synced and Healthy",
    "image: factory.talos.dev/nocloud-installer/376567988ad370138ad8:v1.13.9",
    "dial tcp 140.82.121.4:443: i/o timeout",
    "created VM 100101 talos-cp-1 on pve1",
    "kubelet-serving CSR csr-abc approved",
    "vip 10.10.0.5 is held by talos-cp-1",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_is_not_diagnosed(text: str) -> None:
    assert diagnose(text) == []


def error_of(case: dict[str, str]) -> OutsideError:
    """The error that a client would raise."""
    return OutsideError("it failed", system=case["system"], detail=case["text"], code=case.get("code", ""))
