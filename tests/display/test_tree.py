"""The platform tree as tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fluobook
from fluobook.display.reach import matrix_table, sources_table
from fluobook.display.tree import open_tree, versions_table
from fluobook.errors import CheckFailed
from fluobook.gitops.charts import Newer
from fluobook.gitops.reachability import Cell
from fluobook.kubernetes.policies import Verdict

if TYPE_CHECKING:
    from fluobook.display.tree import TreeView

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> TreeView:
    monkeypatch.chdir(REPOSITORY / "notebooks")
    return fluobook.open_tree("phase1")


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TreeView:
    for name in ("cluster-gitops", "params"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in (".sops.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    mqtt = tmp_path / "cluster-gitops/infrastructure/network-policies/fluodata.yaml"
    mqtt.write_text(mqtt.read_text().replace("port: 1883", "port: 1884"))
    monkeypatch.chdir(tmp_path)
    return open_tree("phase1")


def test_every_application_is_told_with_where_it_comes_from_and_goes(tree: TreeView):
    rows = {row[1]: row for row in tree.applications().rows}
    assert set(rows) == {one.name for one in tree.tree.applications}
    cilium = tree.tree.application("cilium")
    assert rows["cilium"] == [-2, "cilium", "infrastructure", "cilium", cilium.version, "kube-system"]


def test_a_clean_tree_passes(tree: TreeView):
    assert tree.findings().rows == []
    assert "no finding" in str(tree.verify())
    assert "0 answered otherwise" in tree.reachability().note


def test_a_spoiled_tree_is_told_and_does_not_pass(spoiled: TreeView):
    assert "network-policies/fluodata.yaml:" in str(spoiled.findings())
    assert "✗ rabbitmq" in str(spoiled.reachability())
    assert "✗ 1883/TCP" in str(spoiled.reaching("rabbitmq"))
    with pytest.raises(CheckFailed, match=r"\[reachability\]"):
        spoiled.verify()


def test_no_value_of_a_secret_is_told(tree: TreeView):
    told = str(tree.secrets())
    assert "fluodata/fluodata-pg-credentials  username, password" in told
    assert "ENC[" not in told


def question(source: str, *, allowed: bool, row: int = 1) -> Cell:
    return Cell(source, "db", 5432, "TCP", Verdict(allowed, ()), row, "why" if row else "")


def test_a_cell_says_whether_all_some_or_no_pod_of_a_namespace_may():
    asked = [
        question("a", allowed=True),
        question("b", allowed=False, row=0),
        question("c", allowed=True),
        question("world", allowed=False, row=0),
    ]
    table = matrix_table(asked, {"a": "one", "b": "one", "c": "two", "world": "", "db": "three"})
    assert table.columns == ["pod", "port", "one", "two", "world"]
    assert [str(cell) for cell in table.rows[0]] == ["✓ db", "5432/TCP", "◐", "●", "·"]
    assert [str(cell) for cell in sources_table(asked, "db").rows[0]] == ["✓ 5432/TCP", "a, c", "why"]


def test_what_is_open_without_a_row_is_marked():
    table = matrix_table([question("a", allowed=True, row=0)], {"a": "one"})
    assert str(table.rows[0][0]) == "✗ db"
    assert "1 answered otherwise" in table.note


def test_columns_are_short_and_differ():
    asked = [question(name, allowed=True) for name in ("scylla", "scylla-operator", "monitoring")]
    assert matrix_table(asked, dict.fromkeys(("scylla", "scylla-operator", "monitoring"), "")).columns[2:] == [
        "moni",
        "scylla",
        "scylla-",
    ]


def test_versions_are_counted_by_how_far_they_are():
    file = Path("x")
    table = versions_table(
        [Newer("a", "a", "1.0.0", "1.0.1", "patch", file), Newer("b", "b", "1.0.0", "1.0.0", "newest", file)]
    )
    assert table.note == "1 newest, 1 patch"
