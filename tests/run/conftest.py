"""The command itself, run as people and CI run it, and a lab that stays up between two runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab import life

from fluobook import params
from fluobook.journal import journal as journals
from fluobook.lab import programs as lab_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
FLUOBOOK = Path(sys.executable).with_name("fluobook")
BOUND = 300
"""Seconds that one run may take on a busy machine."""


@dataclass
class Operator:
    """An operator with a home folder of their own, who runs commands."""

    home: Path
    labs: list[life.Lab] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "FLUOBOOK_HOME": str(self.home)}

    def runs(self, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [str(FLUOBOOK), *words]
        return subprocess.run(
            command, cwd=cwd, env=self.env, capture_output=True, text=True, timeout=BOUND, check=False
        )

    def starts(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        process = subprocess.Popen(
            [str(FLUOBOOK), *words],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def lab_up(self, *faults: str, phase: str = "phase1", speed: float = 300.0) -> life.Lab:
        """Start a lab as `fluobook lab up` does; it ends with the tests at the latest."""
        chosen = params.load(phase, root=ROOT)
        folder = self.home / "lab" / phase
        lab = life.start(
            chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=speed, faults=faults
        )
        self.labs.append(lab)
        return lab

    def close(self) -> None:
        """End everything that was started."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.communicate(timeout=BOUND)
        for lab in self.labs:
            life.end(lab)


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return journals.read(path) if path.exists() else []


@pytest.fixture
def events_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The events in a run folder so far."""
    return events


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """One operator, for one test."""
    operator = Operator(tmp_path / "home")
    yield operator
    operator.close()


@pytest.fixture(scope="module")
def shared_operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator, for all tests of a module."""
    operator = Operator(tmp_path_factory.mktemp("operator"))
    yield operator
    operator.close()
