from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluobook import gitops, params
from fluobook.gitops.build import builder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.build import Builder
    from fluobook.gitops.tree import Tree
    from fluobook.params import Platform

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What `fluobook check` reads of the repository, copied so that a mistake can be planted in it."""
    for name in ("cluster-gitops", "params"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / ".sops.yaml", tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tree() -> Tree:
    return gitops.read(REPOSITORY)


@pytest.fixture(scope="session", params=["phase1", "phase2", "phase3"])
def platform(request: pytest.FixtureRequest) -> Platform:
    return params.load(REPOSITORY / "params" / f"{request.param}.yaml").platform


@pytest.fixture(scope="session")
def phase3() -> Platform:
    return params.load(REPOSITORY / "params" / "phase3.yaml").platform


@pytest.fixture(scope="session")
def real() -> Iterator[Builder]:
    with builder(REPOSITORY / "cluster-gitops") as built:
        yield built
