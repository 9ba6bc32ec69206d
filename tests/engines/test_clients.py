"""The Python clients that people write their own tools with see the same on both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.engines.environments import alone, environment

if TYPE_CHECKING:
    from tests.engines.engine import Engine

FOREIGN = Path(__file__).with_name("foreign")
BOUND = 180


def observations(python: str, script: str, engine: Engine) -> dict[str, Any]:
    """What a script of a client tells of an engine."""
    command = [python, str(FOREIGN / script), str(engine.kubeconfig()), script.partition("_")[0]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=alone(), check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def test_the_official_client_sees_the_same_on_both_engines(both: tuple[Engine, Engine]) -> None:
    embedded, real = (observations(sys.executable, "kubernetes_client.py", engine) for engine in both)
    assert embedded == real
    assert real["watched"] == [["ADDED", "two"], ["DELETED", "one"]]
    assert real["conflict"][:2] == [409, "Conflict"]


def test_kr8s_sees_the_same_on_both_engines(both: tuple[Engine, Engine]) -> None:
    python = environment("kr8s-0.20.15", "kr8s==0.20.15")
    embedded, real = (observations(python, "kr8s_client.py", engine) for engine in both)
    assert embedded == real
    assert real["patched"] == {"a": "1", "b": "2"}
