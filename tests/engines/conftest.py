"""Tests on the real engine: left out unless FLUOBOOK_ENGINES=1 (`make test-engines`), since it must be built first."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import params
from fluobook.clients import engines
from fluobook.lab import life
from fluobook.lab.clock import Clock
from fluobook.lab.engines.control_plane import ControlPlane
from fluobook.lab.engines.requests import Api
from fluobook.lab.faults import Faults
from fluobook.lab.grpc import reserve
from fluobook.lab.kube.cluster import KubeCluster
from fluobook.lab.kubernetes_side import server_context
from fluobook.lab.talos.config import MachineConfiguration, load, pair
from fluobook.machine import generate, pki
from fluobook.machine.secrets import new_secrets
from fluobook.record.journal import Journal
from fluobook.redact import Redactor
from fluobook.runbook import Book, lab_programs
from fluobook.stages.core.gate import Approval, Gate
from fluobook.stages.core.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BOUND = 180
"""Seconds that a control plane may take on a busy machine."""
ADDRESS = "10.10.0.10"
LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engines: runs the real control plane and Argo CD")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("engines")
        item.add_marker(pytest.mark.timeout(900))
    if os.environ.get("FLUOBOOK_ENGINES") != "1":
        config.stash[LEFT_OUT] = len(ours)
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out, and how to run it: a number among others is overlooked."""
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests on the real engine were left out: `make test-engines` runs them")


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    return engines.programs(ROOT, needed=("kubernetes", "etcd", "kwok"))


class RealLab:
    """A lab with the real engine in its own process, and stages of freshly opened books on it."""

    def __init__(self, lab: life.Lab, chosen: params.Params) -> None:
        self.lab, self.chosen = lab, chosen
        redactor = Redactor()
        platform = params.overlay(chosen.platform, lab.overlay)
        self.site = Site(chosen.phase, platform, "lab", ROOT, lab.site_folder, redactor, Journal(None, redactor))

    def bring_up(self, *names: str) -> None:
        for name in names:
            gate = Gate(Approval.parse("all"), "lab", self.site.platform.cluster.name)
            stage = Book(self.site, gate).stage(name)
            stage.apply(stage.plan())
            stage.verify()

    def mutating(self) -> list[dict[str, Any]]:
        return [request for request in life.story(self.lab)["requests"] if request["mutating"]]


@pytest.fixture(scope="module")
def real_labs(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RealLab]]:
    started: list[life.Lab] = []

    def make(phase: str = "phase1") -> RealLab:
        chosen, folder = params.load(phase, root=ROOT), tmp_path_factory.mktemp("lab")
        lab = life.start(
            chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=300, engines=programs
        )
        started.append(lab)
        return RealLab(lab, chosen)

    yield make
    for lab in started:
        life.end(lab, forget=True)


@pytest.fixture(scope="session")
def configuration() -> MachineConfiguration:
    made = generate("lab", f"https://{ADDRESS}:6443", "1.35.4", new_secrets(), "/dev/sda")
    return load(yaml.safe_dump_all(made.controlplane))


class Engine:
    """One of the two engines: `ask` answers as (status, object)."""

    def __init__(self, name: str, api: Api, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.api, self._loop = name, api, loop

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)


@pytest.fixture(scope="session")
def embedded(background: Any, configuration: MachineConfiguration) -> Iterator[Engine]:
    authority = pair(configuration.cluster["ca"])
    sock = reserve()

    async def start() -> KubeCluster:
        cluster = KubeCluster(Clock(300), Faults(()), version="v1.35.4")
        cluster.start_controllers(authority, bootstrap_token=configuration.cluster["token"])
        await cluster.api.start(sock, server_context(ADDRESS, configuration))
        return cluster

    cluster = background.run(start())
    engine = Engine("embedded", _administrator(configuration, sock.getsockname()), background.loop)
    yield engine
    engine.call(engine.api.close())
    background.run(cluster.stop())


@pytest.fixture(scope="session")
def real(
    background: Any,
    configuration: MachineConfiguration,
    programs: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("control-plane")
    run = partial(asyncio.run_coroutine_threadsafe, loop=background.loop)

    async def start() -> tuple[ControlPlane, int]:
        plane = ControlPlane(programs, folder)
        await plane.begin("cp-1", configuration, ADDRESS)
        server = await plane.serve("cp-1", configuration, ADDRESS)
        await plane.control(server)
        return plane, server.port

    plane, port = run(start()).result(BOUND)
    engine = Engine("real", _administrator(configuration, ("127.0.0.1", port)), background.loop)
    engine.call(engine.api.until_answered("/api/v1/namespaces/default/serviceaccounts/default"))
    yield engine
    engine.call(engine.api.close())
    run(plane.stop()).result(BOUND)


def _administrator(configuration: MachineConfiguration, place: tuple[str, int]) -> Api:
    authority = pair(configuration.cluster["ca"])
    admin = pki.issue(authority, common_name="admin", organizations=["system:masters"], client=True)
    return Api(configuration.endpoint, authority.crt, identity=admin, place=place)
