"""What the real engine answered to every interaction, kept in the tree: every machine holds the embedded one to it.

`python -m tests.engines.recording` records it again; `make test-engines` proves that it is still what the programs say.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fluobook_lab.engines import programs as engines
from fluobook_lab.talos.config import MachineConfiguration, load, pair

from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets
from tests.engines.cases import CASES
from tests.engines.engine import ADDRESS, BOUND, Engine, Real
from tests.engines.step import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
ANSWERS = Path(__file__).with_name("answers.json")


def configuration() -> MachineConfiguration:
    """A control plane's machine configuration."""
    made = generate("lab", f"https://{ADDRESS}:6443", "1.35.4", new_secrets(), "/dev/sda")
    return load(yaml.safe_dump_all(made.controlplane))


def recorded() -> Mapping[str, list[Any]]:
    """The answers by case, in the order of its steps."""
    return dict(json.loads(ANSWERS.read_text()))


def record() -> None:
    """Ask the real engine everything and write what it answers."""
    folder, config = Path(tempfile.mkdtemp(prefix="fluobook-recording-")), configuration()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    started = Real(config, engines.programs(ROOT, needed=("kubernetes", "etcd", "kwok")), folder / "programs")
    asyncio.run_coroutine_threadsafe(started.start(), loop).result(BOUND)
    engine = Engine("real", pair(config.cluster["ca"]), ("127.0.0.1", started.port), folder, loop)
    try:
        engine.settle()
        by_case = {name: [answer(engine, step) for step in steps] for name, steps in CASES.items()}
        lines = [f"{json.dumps(name)}: {json.dumps(answers, sort_keys=True)}" for name, answers in by_case.items()]
        ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    finally:
        engine.call(engine.close())
        asyncio.run_coroutine_threadsafe(started.stop(), loop).result(BOUND)


if __name__ == "__main__":
    record()
