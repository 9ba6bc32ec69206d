"""The notebook API: what `open_runbook` returns before and after a lab is needed, and the platform tree."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fluobook
from fluobook import notebook
from fluobook.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from fluobook.notebook import PlatformTree, Runbook

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def runbook(monkeypatch: pytest.MonkeyPatch) -> Runbook:
    """A runbook that fails the test if it opens its context: nothing here needs a lab."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a lab was started")

    monkeypatch.setattr(notebook, "open_context", refuse)
    monkeypatch.chdir(REPOSITORY / "notebooks")
    return fluobook.open_runbook("phase1")


def test_a_target_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"neither \"lab\" nor \"live\""):
        fluobook.open_runbook("phase1", target="prod")


def test_an_approval_of_a_stage_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="there is no stage 'nonsense'"):
        fluobook.open_runbook("phase1", approve="nonsense=123456")


def test_a_stage_may_be_approved_by_its_number():
    assert notebook.parse_approval("1=63155a").digests == {"create-vms": "63155a"}


@pytest.fixture
def tree(runbook: Runbook) -> PlatformTree:
    return runbook.tree


@pytest.fixture
def broken_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformTree:
    for name in ("cluster-gitops", "params"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in (".sops.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    mqtt = tmp_path / "cluster-gitops/infrastructure/network-policies/fluodata.yaml"
    mqtt.write_text(mqtt.read_text().replace("port: 1883", "port: 1884"))
    monkeypatch.chdir(tmp_path)
    return fluobook.open_runbook("phase1").tree


def test_every_application_is_shown_with_its_source_and_namespace(tree: PlatformTree):
    rows = {row[1]: row for row in tree.applications().rows}
    assert set(rows) == {app.name for app in tree.tree.applications}
    cilium = tree.tree.application("cilium")
    assert rows["cilium"] == [-2, "cilium", "infrastructure", "cilium", cilium.version, "kube-system"]


def test_a_clean_tree_passes(tree: PlatformTree):
    assert tree.findings().rows == []
    assert "no finding" in str(tree.verify())
    assert "0 not answered as expected" in tree.reachability().note


def test_a_broken_tree_is_shown_and_does_not_pass(broken_tree: PlatformTree):
    assert "network-policies/fluodata.yaml:" in str(broken_tree.findings())
    assert "✗ rabbitmq" in str(broken_tree.reachability())
    assert "✗ 1883/TCP" in str(broken_tree.reaching("rabbitmq"))
    with pytest.raises(CheckFailed, match=r"\[reachability\]"):
        broken_tree.verify()


def test_no_value_of_a_secret_is_shown(tree: PlatformTree):
    shown = str(tree.secrets())
    assert "fluodata/fluodata-pg-credentials  username, password" in shown
    assert "ENC[" not in shown
