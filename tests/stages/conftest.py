"""A lab in this process, and runbooks that are opened on it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis  # noqa: F401 (its plugin imports it as the session ends, where Python 3.11 may stumble over parsing)
import pytest
from fluobook_lab.argocd.repo_server import Programs
from fluobook_lab.environment import Environment

from fluobook import params
from fluobook.context import POLICIES, RunContext
from fluobook.errors import FluobookError
from fluobook.journal.journal import Journal
from fluobook.lab import programs as lab_programs
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue
from fluobook.stages.core.plan import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.notebook import StageRun

ROOT = Path(__file__).parents[2]
SPEED = 300.0
STAGES = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


@dataclass
class Lab:
    """A lab that runs in the background, and the requests to it."""

    environment: Environment
    background: Any
    chosen: params.Params
    folder: Path
    phase: str | Path
    marks: list[int] = field(default_factory=list)
    sites: list[RunContext] = field(default_factory=list)

    def context(self, *settings: str, **changes: Any) -> RunContext:
        """A context on this lab; settings as `--set`, changes as in `params.overlay`."""
        overlay = json.loads((self.folder / "lab.json").read_text())["overlay"]
        chosen = params.load(self.phase, overrides=settings, root=ROOT) if settings else self.chosen
        platform = params.overlay(params.overlay(chosen.platform, overlay), changes)
        redactor = Redactor()
        self.sites.append(
            RunContext(chosen.phase, platform, "lab", ROOT, self.folder / "cluster", redactor, Journal(None, redactor))
        )
        return self.sites[-1]

    def stage(self, name: str, *settings: str, approve: str = "all", context: RunContext | None = None) -> StageRun:
        """A stage of a freshly opened runbook: nothing is remembered from an earlier one."""
        context = context or self.context(*settings)
        return stage_run(
            catalogue.find(name), context, Gate(Approval.parse(approve), POLICIES["lab"], context.platform.cluster.name)
        )

    def bring_up(self, *names: str) -> None:
        """Run stages from plan to verify."""
        for name in names:
            stage = self.stage(name)
            stage.apply(stage.plan())
            stage.verify()

    def add_fault(self, name: str, times: int = 1) -> None:
        """Inject one more fault from now on."""
        self.background.call(self.environment.faults.add, name, times)

    def inject(self, *names: str) -> None:
        """Inject these faults and no others from now on."""
        self.background.run(self.environment.change_faults(names))

    def requests(self, server: str = "", *, mutating: bool | None = None) -> list[dict[str, Any]]:
        """The requests to the servers since the last mark."""
        requests = self.background.call(self.environment.requests)[sum(self.marks[-1:]) :]
        return [
            r
            for r in requests
            if r["server"].startswith(server) and (mutating is None or bool(r["mutating"]) == mutating)
        ]

    def mark(self) -> None:
        """Ignore the requests until now."""
        self.marks.append(len(self.background.call(self.environment.requests)))

    def until(self, question: Callable[[], Any]) -> None:
        """Wait until the answer is true."""
        deadline = time.monotonic() + 60
        while not question():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.02)

    def paths(self, method: str) -> list[str]:
        """Paths that Proxmox VE was asked with a method since the last mark."""
        return [r["path"].removeprefix("/api2/json") for r in self.requests("proxmox") if r["method"] == method]


def interrupting(perform: Callable[..., Any], after: int) -> Callable[..., Any]:
    """What performs actions, and fails at the one with that number; after it was done if the number is even."""
    done = 0

    def performed(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == after and after % 2:
            raise FluobookError("the laptop was closed")
        result = perform(*arguments)
        if done == after:
            raise FluobookError("the laptop was closed")
        return result

    return performed


@pytest.fixture(scope="session")
def programs() -> Programs:
    return Programs(**{name: Path(path) for name, path in lab_programs().items()})


def made(background: Any, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def make(*faults: str, phase: str | Path = "phase1", speed: float = SPEED, **changes: Any) -> Lab:
        chosen = params.load(phase, root=ROOT)
        platform = params.overlay(chosen.platform, changes)
        folder = tmp_path_factory.mktemp("lab")

        async def start() -> Environment:
            environment = Environment(
                platform, root=ROOT, folder=folder, programs=programs, speed=speed, seed=1, faults=faults
            )
            await environment.start()
            return environment

        labs.append(Lab(background.run(start()), background, chosen, folder, phase))
        return labs[-1]

    yield make
    for lab in labs:
        for context in lab.sites:
            context.close()
        background.run(lab.environment.stop())


@pytest.fixture
def labs(background: Any, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """Makes labs of a phase or params file for one test; faults by name, changes as in `params.overlay`."""
    yield from made(background, programs, tmp_path_factory)


@pytest.fixture(scope="module")
def shared_labs(
    background: Any, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Lab]]:
    """As `labs`, for all tests of a module."""
    yield from made(background, programs, tmp_path_factory)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def platform() -> params.Platform:
    """The platform of phase 1."""
    return params.load("phase1", root=ROOT).platform
