"""The params file is changed as a part of the plan: one value, and nothing where it says the version already."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.context import RunContext
from fluobook.journal.journal import Journal
from fluobook.redact import Redactor
from fluobook.stages.core.plan import Action
from fluobook.stages.upgrade_kubernetes.work import params_file, perform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEW = "1.36.2"


@pytest.fixture
def context(root: Path, tmp_path: Path) -> Callable[..., RunContext]:
    """Makes contexts of a repository that has only params."""
    shutil.copytree(root / "params", tmp_path / "params")

    def make(*settings: str, target: str = "live", phase: str = "phase3") -> RunContext:
        chosen = params.load("phase3", settings, root=tmp_path)
        redactor = Redactor()
        return RunContext(
            phase, chosen.platform, target, tmp_path, tmp_path / "home", redactor, Journal(None, redactor)
        )

    return make


def test_a_file_that_says_the_version_stays(context: Callable[..., RunContext]) -> None:
    assert params_file(context()) is None


def test_the_version_that_was_given_by_set_is_written_and_all_else_stays(
    context: Callable[..., RunContext], tmp_path: Path
) -> None:
    site = context(f"versions.kubernetes={NEW}")
    before = (tmp_path / "params" / "phase3.yaml").read_text().splitlines()
    found: Any = params_file(site)
    assert (found.name, found.says, found.writes) == (
        "params/phase3.yaml",
        params.pins(tmp_path)["kubernetes"],
        True,
    )
    perform(site, Action("params", "change", found.name, data={"version": NEW}), None)  # type: ignore[arg-type]
    after = (tmp_path / "params" / "phase3.yaml").read_text().splitlines()
    (line,) = [new for old, new in zip(before, after, strict=True) if old != new]
    assert line == f'  versions: {{talos: null, kubernetes: "{NEW}"}}'
    assert f"+{line}" in found.diff.splitlines()
    assert context().platform.versions.kubernetes == NEW
    assert params_file(context()) is None


def test_a_rehearsal_changes_no_file(context: Callable[..., RunContext]) -> None:
    found: Any = params_file(context(f"versions.kubernetes={NEW}", target="lab"))
    assert not found.writes


def test_a_platform_without_a_file_of_its_name_has_none_to_change(context: Callable[..., RunContext]) -> None:
    found: Any = params_file(context(f"versions.kubernetes={NEW}", phase="berlin"))
    assert found.name == ""


def test_the_file_of_another_cluster_is_not_touched(context: Callable[..., RunContext]) -> None:
    found: Any = params_file(context(f"versions.kubernetes={NEW}", "cluster.name=another"))
    assert found.name == ""
