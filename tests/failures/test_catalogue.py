from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook import errors
from fluobook.errors import OutsideError, UsageError
from fluobook.failures.catalogue import catalogue, entry, explain, fill

CASES: dict[str, list[Any]] = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())
EACH = [pytest.param(code, case, id=f"{code}-{number}") for code in CASES for number, case in enumerate(CASES[code])]


def test_the_catalogue_is_complete() -> None:
    assert [failure.code for failure in catalogue()] == [f"F{number:02}" for number in range(1, 169)]


def test_every_failure_has_a_case() -> None:
    assert list(CASES) == [failure.code for failure in catalogue()]
    assert all(CASES.values())


@pytest.mark.parametrize(("code", "case"), EACH)
def test_a_symptom_is_recognised_before_all_others(code: str, case: Any) -> None:
    error = case if isinstance(case, str) else error_of(case)
    assert [match.failure.code for match in explain(error)][:1] == [code]


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.code)
def test_every_failure_has_a_title_causes_a_remedy_and_a_next_command(failure: Any) -> None:
    assert failure.symptoms or failure.codes or failure.exact_codes or failure.kinds
    assert all([failure.title, failure.causes, failure.remedy, failure.next])
    assert all(cause.endswith(".") for cause in failure.causes)
    assert failure.remedy.endswith(".")
    assert len(failure.title) < 80


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.code)
def test_a_next_command_is_shown_only_if_everything_in_it_is_known(failure: Any) -> None:
    for command in failure.next:
        values = {name: f"the-{name}" for _, name, _, _ in string.Formatter().parse(command) if name}
        complete = fill([command], values)
        assert all(value in complete for value in values.values())
        assert not re.search(r"<\w+>|\{\w+\}", complete)
        assert all(fill([command], {**values, name: ""}) == "" for name in values)
        assert not re.match(r"kubectl (?!kustomize)|talosctl (?!.*--insecure)", complete), "it may use another cluster"


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
def test_a_harmless_text_matches_no_failure(text: str) -> None:
    assert explain(text) == []


def error_of(case: dict[str, str]) -> OutsideError:
    """The error that a client would raise."""
    kind = getattr(errors, case.get("kind", "OutsideError"))
    return kind("it failed", system=case["system"], detail=case.get("text", ""), code=case.get("code", ""))


def test_an_entry_is_found_by_its_code_in_any_case() -> None:
    assert entry("f28") is entry("F28")


@pytest.mark.parametrize(
    ("code", "hint"), [("F280", "F28 etcd"), ("quorum", "F69 "), ("nothing-like-it", "F01 to F168")]
)
def test_an_unknown_code_is_a_usage_error_with_near_matches(code: str, hint: str) -> None:
    with pytest.raises(UsageError) as unknown:
        entry(code)
    assert hint in unknown.value.remedy


def test_codes_and_classes_are_only_matched_within_named_systems() -> None:
    assert [
        failure.code
        for failure in catalogue()
        if (failure.codes or failure.exact_codes or failure.kinds) and not failure.systems
    ] == []
