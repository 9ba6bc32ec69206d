"""Drills: each failure that can be practised is named by its code, and its remedy lets the stage finish."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fluobook_lab.drills import DRILLS, Drill

from fluobook import cli
from fluobook import lab as labs
from fluobook.errors import FluobookError
from fluobook.failures import Presentation, entry, present
from fluobook.stages.catalogue import STAGES

ROOT = Path(__file__).parents[2]
ORDER = [stage.name for stage in STAGES]


@pytest.fixture(scope="module")
def fresh(shared_labs: Callable[..., Any]) -> Any:
    """A lab on which nothing was done yet: the preflight changes nothing, so one serves for all."""
    return shared_labs()


def run(lab: Any, drill: Drill, *settings: str) -> None:
    """Run the stage of a drill from plan to verify."""
    stage = lab.stage(drill.stage, *settings)
    stage.apply(stage.plan())
    stage.verify()


def named(shown: Presentation) -> set[str]:
    """The failures that a person reads: of the error itself, or of each check that failed."""
    return set(re.findall(r"\((F\d+) ", shown.message)) or {shown.failure.partition(" ")[0]}


def practise(lab: Any, code: str) -> None:
    drill = DRILLS[code]
    lab.inject(*drill.injected)
    with pytest.raises(FluobookError) as caught:
        run(lab, drill, *drill.settings)
    shown = present(caught.value, phase=drill.phase)
    assert code in named(shown), shown.text()
    if drill.outside:
        lab.inject()
    run(lab, drill, *drill.change)
    lab.inject()


def of_stage(*stages: str) -> list[Any]:
    """The drills of some stages; those that need several hosts or configured nodes are slow."""
    slow = ("host-network", "bootstrap-kubernetes", "install-argocd", "root-application")
    marks = {stage: [pytest.mark.long] for stage in slow}
    drills = [(code, drill) for code, drill in DRILLS.items() if drill.stage in stages]
    return [pytest.param(code, marks=marks.get(drill.stage, [])) for code, drill in drills]


@pytest.mark.lab
@pytest.mark.parametrize("code", of_stage("preflight"))
def test_a_failure_of_the_preflight_is_named_and_its_remedy_helps(fresh: Any, code: str) -> None:
    practise(fresh, code)


@pytest.mark.lab
@pytest.mark.parametrize("code", of_stage(*(name for name in ORDER if name not in ("preflight", "approve-csrs"))))
def test_a_failure_of_the_machines_is_named_and_its_remedy_helps(labs: Callable[..., Any], code: str) -> None:
    lab = labs(phase=DRILLS[code].phase)
    lab.bring_up(*ORDER[2 : ORDER.index(DRILLS[code].stage)])
    practise(lab, code)


@pytest.fixture(scope="module")
def cluster(shared_labs: Callable[..., Any]) -> Any:
    """A lab with a cluster; what is practised on its API changes nothing before it is repaired."""
    lab = shared_labs()
    lab.bring_up(*ORDER[2 : ORDER.index("approve-csrs")])
    return lab


@pytest.mark.lab
@pytest.mark.parametrize("code", of_stage("approve-csrs"))
def test_a_failure_of_the_api_is_named_and_its_remedy_helps(cluster: Any, code: str) -> None:
    practise(cluster, code)


def test_at_least_forty_entries_of_the_catalogue_can_be_practised_each_with_a_remedy() -> None:
    assert len([entry(code) for code in DRILLS]) >= 40
    assert [code for code, drill in DRILLS.items() if not (drill.outside or drill.change)] == []
    assert [code for code, drill in DRILLS.items() if drill.settings and not drill.outside] == [], "they never end"


def test_what_is_practised_is_a_fault_until_it_is_repaired(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    provider = labs.provider()

    def listens() -> bool:
        lab = provider.find(provider.folder_of("phase1"))
        assert lab
        host, _, port = lab.overlay["endpoints"]["192.168.1.100:8006"].rpartition(":")
        with closing(socket.socket()) as connection:
            return connection.connect_ex((host, int(port))) == 0

    def deadlines() -> Any:
        lab = provider.find(provider.folder_of("phase1"))
        assert lab
        return lab.overlay.get("deadlines")

    try:
        assert cli.run(["drill", "--repaired"]) == 1
        assert cli.run(["drill", "f73"]) == 0
        assert "Proxmox" not in capsys.readouterr().out
        assert not listens()
        assert cli.run(["drill", "F01"]) == 0
        assert listens()
        assert cli.run(["drill", "F73", "--repaired"]) == 1
        assert cli.run(["drill", "--repaired"]) == 0
        assert "the token is created again" in capsys.readouterr().out
        assert cli.run(["drill", "F08"]) == 0
        assert "deadlines.image_download=2 in every run, also by hand" in capsys.readouterr().out
        assert deadlines() == {"image_download": 2}
        assert cli.run(["drill", "--repaired"]) == 0
        assert deadlines() is None
    finally:
        cli.run(["lab", "down", "phase1"])


def test_the_drills_are_listed_and_an_entry_without_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["drill", "--list"]) == 0
    assert "F64   The storage is full" in capsys.readouterr().out
    assert cli.run(["drill", "F19"]) == 64
    assert "F19 cannot be practised" in capsys.readouterr().err
