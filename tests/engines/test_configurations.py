"""Machine configurations: Talos' own code gives the verdicts that the lab's nodes and stage 2 give."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab.talos.config import InvalidConfigurationError, load, validate

from fluobook.errors import ParamsError
from fluobook.machine import generate, merge
from fluobook.machine.contracts import has_documents
from fluobook.machine.documents import dump
from fluobook.machine.secrets import ALGORITHMS, PHASES, begun, new_secrets
from fluobook.params.versions import CONTRACTS
from tests.lab.talos.configurations import CASES, GENERATED, text_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def referee(programs: dict[str, str]) -> Callable[..., list[str]]:
    """Talos' verdicts on configurations: the message with which it refuses each, "" for a valid one; with "merge", what
    Talos makes of pairs of a configuration and a patch, "" where it refuses the patch."""
    program = programs["talos-referee"]

    def verdicts(questions: list[Any], *arguments: str) -> list[str]:
        done = subprocess.run(
            [program, *arguments], input=json.dumps(questions), capture_output=True, text=True, check=True, timeout=200
        )
        return list(json.loads(done.stdout))

    return verdicts


def test_the_recorded_verdicts_are_those_of_talos(referee: Callable[[list[str]], list[str]]) -> None:
    verdicts = referee([text_of(case) for case in CASES])
    different = [
        (case, verdict)
        for case, verdict in zip(CASES, verdicts, strict=True)
        if bool(verdict) != ("refused" in case) or case.get("refused", "") not in verdict
    ]
    assert different == []


@pytest.mark.parametrize("contract", [each for each in CONTRACTS if not has_documents(each)])
def test_talos_takes_the_configurations_of_each_phase_of_a_rotation(
    referee: Callable[[list[str]], list[str]], contract: str
) -> None:
    bundle, texts = new_secrets(), []
    for name, phase in itertools.product(ALGORITHMS, PHASES):
        rotation = replace(begun(bundle, name), phase=phase)
        made = generate("x", "https://x:6443", "1.35.4", bundle.rotating({name: rotation}), contract=contract)
        texts += [dump(made.of(role)) for role in ("controlplane", "worker")]
    assert referee(texts) == [""] * len(texts)


def test_the_lab_gives_the_verdicts_of_talos(referee: Callable[[list[str]], list[str]]) -> None:
    texts = [text_of(case) for case in CASES]
    different = [text for text, verdict in zip(texts, referee(texts), strict=True) if bool(verdict) != refused(text)]
    assert different == []


def test_patches_are_merged_as_talos_merges_them(referee: Callable[..., list[str]]) -> None:
    table = yaml.safe_load(Path(__file__).with_name("merges.yaml").read_text())
    cases = []
    for case in table["merges"]:
        also = [table["documents"][index] for index in case.get("also", ())]
        cases.append(([*GENERATED.of(case.get("role", "controlplane")), *also], case["patch"]))
    expected = referee([(yaml.safe_dump_all(base), patch) for base, patch in cases], "merge")
    different = [
        patch for (base, patch), text in zip(cases, expected, strict=True) if _merged(base, patch) != _plain(text)
    ]
    assert different == []
    assert sum(text == "" for text in expected) > len(cases) / 20


def _merged(base: list[dict[str, Any]], patch: str) -> list[Any]:
    try:
        return _plain(dump(merge(base, patch)))
    except ParamsError:
        return []


def _plain(text: str) -> list[Any]:
    """The documents without what is empty or zero, which Talos does not write, in one order."""
    return sorted(map(_filled, filter(None, yaml.safe_load_all(text))), key=repr)


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        entries = {key: _filled(item) for key, item in sorted(value.items())}
        return {key: item for key, item in entries.items() if item not in (None, {}, [], "", 0)}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def refused(text: str) -> bool:
    try:
        validate(load(text))
    except InvalidConfigurationError:
        return True
    return False
