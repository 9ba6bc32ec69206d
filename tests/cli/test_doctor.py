"""`fluobook doctor`: what it checks, and what it reports if something is missing."""

from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest

from fluobook import cli
from fluobook.cli import doctor
from fluobook.clients.tools import Tool
from fluobook.machine import access
from fluobook.machine.secrets import new_secrets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)


def checks(name):
    return [check for check in doctor.examine(ROOT) if check.name == name]


def test_this_environment_passes(capsys):
    assert cli.run(["doctor"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert all(line.startswith("✓ ") for line in out)
    assert {"python", "system", "git", "helm", "kubectl", "sops", "packages", "home", "loopback", "labs"} <= {
        line.split()[1] for line in out
    }


def test_it_creates_no_folder(tmp_path):
    doctor.examine(ROOT)
    assert not (tmp_path / "home").exists()


def test_a_missing_program_is_named_and_the_exit_code_says_so(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "inventory", lambda: [Tool("helm", Path(), "", "no helm 3.17 or newer")])
    assert cli.run(["doctor"]) == 4
    out = capsys.readouterr().out
    assert "✗ helm         no helm 3.17 or newer\n  remedy: put helm on the PATH" in out


def test_a_file_in_place_of_the_home_folder_is_reported(tmp_path):
    (tmp_path / "home").write_text("")
    (check,) = checks("home")
    assert not check.passed
    assert "FLUOBOOK_HOME" in check.remedy


def test_a_missing_loopback_is_reported(monkeypatch):
    def refuse(*_):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert not checks("loopback")[0].passed


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("pydantic==0.1 \\\n    --hash=sha256:00\n", [f"pydantic is {metadata.version('pydantic')}, not 0.1"]),
        ("no-such-package==1.0\n", ["no-such-package is missing, not 1.0"]),
        ("no-such-package==1.0 ; sys_platform == 'plan9' \\\n    --hash=sha256:00\n", []),
        (f"# a comment\n\npydantic=={metadata.version('pydantic')}\n", []),
    ],
)
def test_packages_that_differ_from_the_lock_are_listed(lock, expected):
    assert list(doctor.differences(lock)) == expected


def test_a_lab_that_ended_without_cleaning_up_is_reported(tmp_path):
    folder = tmp_path / "home" / "lab" / "phase1"
    folder.mkdir(parents=True)
    (folder / "lab.json").write_text('{"pid": 999999999, "overlay": {}}')
    assert [check.result.split(";")[0] for check in checks("labs")] == [
        "none is up",
        "the lab of phase1 ended without cleaning up",
    ]


def test_a_missing_browser_is_no_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doctor, "inventory", list)
    assert [check.passed for check in checks("browser")] == [True]


def test_it_says_how_long_the_files_for_kubectl_and_talosctl_still_last(tmp_path):
    bundle = new_secrets()
    live, lab = tmp_path / "home" / "harbour", tmp_path / "home" / "lab" / "phase1" / "cluster"
    for folder, days in ((live, 365), (lab, -0.001)):
        folder.mkdir(parents=True)
        identity = access.kubernetes_client(bundle, days=days)
        config = access.kubeconfig(bundle, "harbour", "https://192.0.2.5:6443", identity=identity)
        (folder / "kubeconfig").write_text(access.dump(config))
    (live / "talosconfig").write_text("context: harbour\n")
    results = {check.result.partition(",")[0]: check.passed for check in checks("kubeconfig")}
    assert results.pop("of harbour lasts 11 months")
    ((expired, passed),) = results.items()
    assert expired.startswith("of phase1 (lab) has a client certificate that expired on ")
    assert not passed
    (damaged,) = checks("talosconfig")
    assert not damaged.passed
    assert "bootstrap-kubernetes of harbour" in damaged.remedy
