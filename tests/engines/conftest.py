"""Tests on the real engine: left out unless FLUOBOOK_ENGINES=1 (`make test-engines`), since it must be built first."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab import life
from fluobook_lab.engines import programs as engines
from fluobook_lab.talos.config import MachineConfiguration, load, pair

from fluobook import params
from fluobook.context import POLICIES, RunContext
from fluobook.journal.journal import Journal
from fluobook.lab import programs as lab_programs
from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue
from fluobook.stages.core.plan import Approval, Gate
from tests.engines.engine import ADDRESS, BOUND, Embedded, Engine, Real

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLUOBOOK = Path(sys.executable).with_name("fluobook")
LONG = ("test_phases.py", "test_spoiled.py")
"""Files that take minutes: they begin first, so that no worker is left with them at the end."""
LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engines: runs the real control plane and Argo CD")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("engines")
        item.add_marker(pytest.mark.timeout(900))
    if os.environ.get("FLUOBOOK_ENGINES") != "1":
        left_out = [item for item in ours if "programs" in getattr(item, "fixturenames", ())]
        config.stash[LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # The embedded engine first: where that is wrong, the real one has little to add. Then what takes longest.
    on_engines = {id(item) for item in ours}
    items.sort(key=lambda item: (id(item) in on_engines, id(item) in on_engines and item.path.name not in LONG))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out, and how to run it: a number among others is overlooked."""
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests on the real engine were left out: `make test-engines` runs them")


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    return engines.programs(ROOT, needed=("kubernetes", "etcd", "kwok", "talos"))


class RealLab:
    """A lab with the real engine in its own process, and stages of freshly opened books on it."""

    def __init__(self, lab: life.Lab, chosen: params.Params, root: Path = ROOT) -> None:
        self.lab, self.chosen, self.ended = lab, chosen, False
        redactor = Redactor()
        platform = params.overlay(chosen.platform, lab.overlay)
        self.context = RunContext(
            chosen.phase, platform, "lab", root, lab.cluster_folder, redactor, Journal(None, redactor)
        )

    def bring_up(self, *names: str) -> dict[str, list[tuple[str, bool]]]:
        """Apply and verify stages; each check, and whether it passed."""
        results = {}
        for name in names:
            gate = Gate(Approval.parse("all"), POLICIES["lab"], self.context.platform.cluster.name)
            stage = stage_run(catalogue.find(name), self.context, gate)
            stage.apply(stage.plan())
            results[name] = [(check.name, check.passed) for check in stage.verify().checks]
        return results

    def apply(self, *names: str) -> None:
        """Apply stages, whatever their checks would say."""
        for name in names:
            gate = Gate(Approval.parse("all"), POLICIES["lab"], self.context.platform.cluster.name)
            stage = stage_run(catalogue.find(name), self.context, gate)
            stage.apply(stage.plan())

    def notebooks(self, out: Path) -> str:
        """Run every notebook headless, as a person would; what it said."""
        command = [str(FLUOBOOK), "run", self.chosen.phase, "--target", "lab", "--engine", self.lab.engine]
        command += ["--approve", "all", "--out", str(out)]
        around = {**os.environ, "FLUOBOOK_HOME": str(self.home)}
        done = subprocess.run(
            command, cwd=self.context.root, env=around, capture_output=True, text=True, timeout=800, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def home(self) -> Path:
        """What FLUOBOOK_HOME is for whoever shall find this lab."""
        return self.lab.folder.parents[1]

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            life.end(self.lab, forget=True)

    def mutating(self) -> list[dict[str, Any]]:
        return [request for request in life.activity(self.lab)["requests"] if request["mutating"]]


@pytest.fixture(scope="session")
def argocd(programs: dict[str, str]) -> str:
    return {**programs, **engines.programs(ROOT, needed=("argocd",))}["argocd"]


@pytest.fixture(scope="module")
def real_labs(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RealLab]]:
    everything = {**programs, **engines.programs(ROOT)}
    started: list[RealLab] = []

    def make(
        phase: str = "phase1",
        *,
        root: Path = ROOT,
        engine: str = "real",
        charts: str = "",
        faults: Sequence[str] = (),
        **changes: Any,
    ) -> RealLab:
        chosen, folder = params.load(phase, root=ROOT), tmp_path_factory.mktemp("home") / "lab" / phase
        chosen = params.Params(phase=chosen.phase, platform=params.overlay(chosen.platform, changes))
        lab = life.start(
            chosen,
            folder,
            root=root,
            programs=lab_programs(),
            owner=os.getpid(),
            speed=300 if engine == "real" else 60,
            engines=everything if engine == "real" else None,
            charts=charts,
            faults=faults,
        )
        started.append(RealLab(lab, chosen, root))
        return started[-1]

    yield make
    for lab in started:
        lab.end()


@pytest.fixture(scope="session")
def configuration() -> MachineConfiguration:
    made = generate("lab", f"https://{ADDRESS}:6443", "1.35.4", new_secrets(), "/dev/sda")
    return load(yaml.safe_dump_all(made.controlplane))


@pytest.fixture(scope="session")
def embedded(
    background: Any, configuration: MachineConfiguration, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    played, folder = Embedded(configuration), tmp_path_factory.mktemp("embedded")
    background.run(played.start())
    authority = pair(configuration.cluster["ca"])
    engine = Engine("embedded", authority, played.sock.getsockname(), folder, background.loop)
    engine.settle()
    yield engine
    engine.call(engine.close())
    background.run(played.stop())


@pytest.fixture(scope="session")
def real(
    background: Any,
    configuration: MachineConfiguration,
    programs: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("real")
    run = partial(asyncio.run_coroutine_threadsafe, loop=background.loop)
    started = Real(configuration, programs, folder / "programs")
    run(started.start()).result(BOUND)
    authority = pair(configuration.cluster["ca"])
    engine = Engine("real", authority, ("127.0.0.1", started.port), folder, background.loop)
    engine.settle()
    yield engine
    engine.call(engine.close())
    run(started.stop()).result(BOUND)


@pytest.fixture(scope="session")
def both(embedded: Engine, real: Engine) -> tuple[Engine, Engine]:
    return embedded, real
