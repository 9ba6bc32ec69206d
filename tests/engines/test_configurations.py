"""Machine configurations: Talos' own code gives the verdicts that the lab's nodes and stage 2 give."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fluobook_lab.talos.config import InvalidConfigurationError, load, validate

from fluobook.params import cache_folder
from tests.lab.talos.configurations import CASES, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = Path(__file__).with_name("referee")
BUILD_TIME = 600


@pytest.fixture(scope="session")
def referee(programs: dict[str, str]) -> Callable[[list[str]], list[str]]:
    """Talos' verdicts on configurations: the message with which it refuses each, "" for a valid one."""
    del programs  # the tests need Go, as the real engine's programs do
    pins = b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))
    program = cache_folder() / "engines" / f"referee-{hashlib.sha256(pins).hexdigest()[:12]}"
    if not program.exists():
        command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-p", "1", "-o", str(program)]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        subprocess.run(command, cwd=SOURCES, env=environment, check=True, timeout=BUILD_TIME)

    def verdicts(texts: list[str]) -> list[str]:
        done = subprocess.run(
            [program], input=json.dumps(texts), capture_output=True, text=True, check=True, timeout=60
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


def test_the_lab_gives_the_verdicts_of_talos(referee: Callable[[list[str]], list[str]]) -> None:
    texts = [text_of(case) for case in CASES]
    different = [text for text, verdict in zip(texts, referee(texts), strict=True) if bool(verdict) != refused(text)]
    assert different == []


def refused(text: str) -> bool:
    try:
        validate(load(text))
    except InvalidConfigurationError:
        return True
    return False
