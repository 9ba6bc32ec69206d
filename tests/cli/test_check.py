"""`fluobook check`: params of every phase and the rules of the tree, by the command itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fluobook import cli

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("params", "talos", "cluster-gitops")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / ".sops.yaml", tmp_path)
    monkeypatch.chdir(tmp_path / "params")
    return tmp_path


def test_this_repository_is_clean_from_any_folder_in_it(monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "cluster-gitops" / "apps")
    assert cli.run(["check"]) == 0
    assert capsys.readouterr().out == "0 findings\n"


def test_wrong_params_are_a_finding_of_their_own(repository, capsys):
    file = repository / "params" / "phase2.yaml"
    file.write_text(file.read_text().replace("cidr:", "cdir:", 1))
    assert cli.run(["check"]) == 4
    assert "params/phase2.yaml: [params] " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("a: [", ["params/versions.yaml:1: [readable] "]),
        ("pins: 5", ["params/versions.yaml: [params] pins = 5", "params/versions.yaml: [params] matrix"]),
    ],
)
def test_wrong_pins_are_reported_where_they_are(repository, text, reported, capsys):
    (repository / "params" / "versions.yaml").write_text(text)
    assert cli.run(["check"]) == 4
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("params/", "site/"))]
    assert len(lines) == len(reported), lines
    assert all(line.startswith(start) for line, start in zip(lines, reported, strict=True)), lines


def test_what_a_topology_cannot_survive_is_a_warning_and_no_finding(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.run(["check"]) == 0
    output = capsys.readouterr()
    assert output.out == "0 findings\n"
    assert "params/phase1.yaml: warning: talos-cp-1 is the only control plane" in output.err
    assert "params/phase1.yaml: warning: nobody receives critical and warning alerts" in output.err
    assert [line for line in output.err.splitlines() if "phase3" in line and "nobody receives" not in line] == []


def test_the_params_of_a_site_are_checked_by_their_own_path(repository, capsys):
    folder = repository / "site" / "params"
    folder.mkdir(parents=True, exist_ok=True)
    site = (ROOT / "tests" / "params" / "valid" / "two-hosts-one-control-plane.yaml").read_text()
    (folder / "berlin.yaml").write_text(site)
    cli.run(["check"])
    assert "site/params/berlin.yaml: warning: cp-1 is the only control plane" in capsys.readouterr().err
    (folder / "berlin.yaml").write_text(site.replace("replicas: 2", "replicas: 3"))
    assert cli.run(["check"]) == 4
    assert "site/params/berlin.yaml: [params] platform.storage.replicas = 3" in capsys.readouterr().out


def test_two_files_with_the_same_names_are_a_finding(repository, capsys):
    (repository / "params" / "berlin.yaml").write_text((repository / "params" / "phase1.yaml").read_text())
    assert cli.run(["check"]) == 4
    output = capsys.readouterr().out
    for name in ("phase = 'phase1'", "platform.cluster.name = 'fluodata'"):
        assert f"params/phase1.yaml: [params] {name}: is used by params/berlin.yaml already" in output


def test_a_secret_in_clear_is_found(repository, capsys):
    secret = repository / "cluster-gitops" / "apps" / "secrets" / "plain.yaml"
    secret.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {password: hunter2}\n")
    assert cli.run(["check"]) == 4
    output = capsys.readouterr().out
    assert "[cleartext]" in output
    assert "hunter2" not in output
