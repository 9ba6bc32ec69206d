from __future__ import annotations

from pathlib import Path

import pytest

from fluobook.errors import ParamsError
from fluobook.params import Matrix, load_supported, repository_root

ROOT = repository_root(Path(__file__))
CHART_VERSIONS = [
    ("talos", "1.13.9"),
    ("cilium", "1.20.2"),
    ("longhorn", "1.12.1"),
    ("argo-cd", "3.5.7"),
    ("cert-manager", "1.21.2"),
    ("cloudnative-pg", "1.30.0"),
    ("scylla-operator", "1.21.1"),
]


@pytest.fixture
def matrix() -> Matrix:
    return load_supported(ROOT).matrix


@pytest.mark.parametrize(("component", "version"), CHART_VERSIONS)
def test_the_pinned_kubernetes_goes_with_everything(matrix: Matrix, component: str, version: str) -> None:
    assert matrix.refusal(component, version, load_supported(ROOT).pins.kubernetes) == ""


@pytest.mark.parametrize(
    ("component", "version", "kubernetes", "row"),
    [
        ("talos", "1.13.9", "1.37.0", "row talos 1.13 of params/versions.yaml allows 1.31 to 1.36"),
        ("talos", "v1.12.11", "v1.29.9", "row talos 1.12 of params/versions.yaml allows 1.30 to 1.35"),
        ("cilium", "1.20.2", "1.32.1", "row cilium 1.20 of params/versions.yaml allows 1.33 to 1.36"),
        ("longhorn", "1.12.1", "1.33.9", "row longhorn 1.12 of params/versions.yaml allows 1.34 and newer"),
        ("cilium", "1.21.0", "1.35.4", "cilium 1.21 has no row in params/versions.yaml (it has 1.17"),
        ("flannel", "0.1.0", "1.35.4", "flannel 0.1 has no row"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_row(
    matrix: Matrix, component: str, version: str, kubernetes: str, row: str
) -> None:
    assert row in matrix.refusal(component, version, kubernetes)


def test_minors_are_compared_as_numbers(matrix: Matrix) -> None:
    assert "allows 1.31 to 1.36" in matrix.refusal("talos", "1.13.0", "1.4.0")


def test_majors_of_proxmox_differ_in_the_guest_agents_privilege(matrix: Matrix) -> None:
    assert {major: row.agent_privilege for major, row in matrix.proxmox.items()} == {
        "8": "VM.Monitor",
        "9": "VM.GuestAgent.Audit",
    }


def test_a_wrong_versions_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "versions.yaml").write_text('pins: {contract: "1.13", talos: 1.13, kubernetes: "1.35.4"}\n')
    with pytest.raises(ParamsError, match=r"versions\.yaml is invalid") as refused:
        load_supported(tmp_path)
    assert "pins.talos = 1.13: must be text, but YAML reads it as float" in refused.value.problems[0]
