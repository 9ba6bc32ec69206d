"""`fluobook doctor`: what it looks at, and what it says where something will not do."""

from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest

from fluobook import cli
from fluobook.cli import doctor
from fluobook.clients.tools import Tool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)


def look(name):
    return [one for one in doctor.examine(ROOT) if one.name == name]


def test_this_environment_is_fit(capsys):
    assert cli.run(["doctor"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert all(line.startswith("✓ ") for line in told)
    assert {"python", "system", "git", "helm", "kubectl", "sops", "packages", "home", "loopback", "labs"} <= {
        line.split()[1] for line in told
    }


def test_it_makes_no_folder(tmp_path):
    doctor.examine(ROOT)
    assert not (tmp_path / "home").exists()


def test_a_missing_program_is_named_and_the_exit_code_says_so(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "inventory", lambda: [Tool("helm", Path(), "", "no helm 3.17 or newer")])
    assert cli.run(["doctor"]) == 4
    told = capsys.readouterr().out
    assert "✗ helm         no helm 3.17 or newer\n  remedy: put helm on the PATH" in told


def test_a_file_in_the_way_of_the_home_folder_is_told(tmp_path):
    (tmp_path / "home").write_text("")
    (found,) = look("home")
    assert not found.ok
    assert "FLUOBOOK_HOME" in found.text()


def test_without_loopback_it_says_so(monkeypatch):
    def refuse(*_):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert not look("loopback")[0].ok


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ("pydantic==0.1 \\\n    --hash=sha256:00\n", [f"pydantic is {metadata.version('pydantic')}, not 0.1"]),
        ("no-such-package==1.0\n", ["no-such-package is missing, not 1.0"]),
        ("no-such-package==1.0 ; sys_platform == 'plan9' \\\n    --hash=sha256:00\n", []),
        (f"# a comment\n\npydantic=={metadata.version('pydantic')}\n", []),
    ],
)
def test_packages_that_are_not_those_of_the_lock_are_named(lock, told):
    assert list(doctor.unlike(lock)) == told


def test_a_lab_that_ended_without_cleaning_up_is_told(tmp_path):
    folder = tmp_path / "home" / "lab" / "phase1"
    folder.mkdir(parents=True)
    (folder / "lab.json").write_text('{"pid": 999999999, "overlay": {}}')
    assert [one.seen.split(";")[0] for one in look("labs")] == [
        "none is up",
        "the lab of phase1 has ended without cleaning up",
    ]


def test_without_a_browser_all_is_well(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doctor, "inventory", list)
    assert [one.ok for one in look("browser")] == [True]
