from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import gitops, params
from fluobook.gitops.build import builder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.build import Builder
    from fluobook.gitops.tree import Tree
    from fluobook.params import Platform

REPOSITORY = Path(__file__).resolve().parents[2]
LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promtool: needs Prometheus' promtool")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if shutil.which("promtool"):
        return
    left_out = [item for item in items if item.get_closest_marker("promtool")]
    config.stash[LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out: a number among others is overlooked."""
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} tests of alerts were left out: `apt-get install prometheus` brings promtool"
        )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What `fluobook check` reads of the repository, copied so that a mistake can be planted in it."""
    for name in ("cluster-gitops", "params", "talos"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / ".sops.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def site(repository: Path) -> Path:
    """The repository with the example of docs/how-to/add-your-application.md in site; it leaves ScyllaDB out."""
    shutil.copytree(REPOSITORY / "tests" / "site", repository / "site")
    return repository


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
    with builder(REPOSITORY) as built:
        yield built
