"""`fluobook kubectl` and `talosctl` act on the platform or not at all; so does kubectl with `fluobook kubeconfig`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fluobook import cli
from fluobook.clients import tools

ROOT = Path(__file__).resolve().parents[2]
FLUOBOOK = Path(sys.executable).with_name("fluobook")
PROGRAM = """#!/bin/sh
if [ "$1" = version ]; then echo '{"clientVersion": {"gitVersion": "v1.35.2"}}'; exit; fi
echo "$*"; echo "KUBECONFIG=$KUBECONFIG TALOSCONFIG=$TALOSCONFIG"; cat; exit 7
"""
LIVE = ("phase1", "--target", "live")


@dataclass
class Shell:
    """A shell of a user who has a kubeconfig of another cluster; kubectl and talosctl repeat their arguments."""

    folder: Path

    @property
    def cluster(self) -> Path:
        return self.folder / "home" / "fluodata"

    def has(self, name: str, content: str) -> Path:
        self.cluster.mkdir(parents=True, exist_ok=True)
        (self.cluster / name).write_text(content)
        return self.cluster / name

    def runs(self, command: str, path: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "FLUOBOOK_HOME": str(self.folder / "home"), "KUBECONFIG": str(self.folder / "own")}
        env["PATH"] = f"{path or self.folder / 'bin'}:{FLUOBOOK.parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", command],
            cwd=ROOT,
            env=env,
            input="typed",
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("kubectl", "talosctl"):
        program = tmp_path / "bin" / name
        program.write_text(PROGRAM)
        program.chmod(0o755)
    (tmp_path / "own").write_text("current-context: own\n")
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("program", "name", "content"),
    [("kubectl", "kubeconfig", "current-context: fluodata\n"), ("talosctl", "talosconfig", "context: fluodata\n")],
)
def test_arguments_input_and_exit_code_are_passed_through(shell, program, name, content):
    path = shell.has(name, content)
    done = shell.runs(f"fluobook {program} {' '.join(LIVE)} -- exec pod -it -- sh -s --target x")
    assert done.returncode == 7, done.stderr
    line, environment, rest = done.stdout.split("\n", 2)
    assert line == f"--{name} {path} exec pod -it -- sh -s --target x"
    assert f"{name.upper()}={path}" in environment
    assert rest == "typed"


@pytest.mark.parametrize(
    "content", [None, "", "{}", "current-context: ''\n", "[1]", "a: 1\n---\nb: 1\n", "a: b: c", "\0"]
)
def test_without_a_usable_kubeconfig_nothing_is_run(shell, content):
    if content is not None:
        shell.has("kubeconfig", content)
    done = shell.runs(f"fluobook kubectl {' '.join(LIVE)} -- get nodes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "fluobook run phase1 --target live" in done.stderr or "kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option", ["--kubeconfig=x", "--kubeconfig x", "--server https://x", "-s https://x", "--context=x"]
)
def test_an_option_that_names_another_cluster_is_refused(shell, option):
    shell.has("kubeconfig", "current-context: fluodata\n")
    done = shell.runs(f"fluobook kubectl {' '.join(LIVE)} -- get nodes {option}")
    assert (done.returncode, done.stdout) == (64, "")
    assert f"{option.split()[0]} does not fit: the cluster is that of phase1" in done.stderr


def test_arguments_without_dashes_are_explained(capsys):
    assert cli.run(["kubectl", "phase1", "get", "nodes"]) == 64
    assert "write -- before what is for kubectl" in capsys.readouterr().err
    assert cli.run(["kubectl", "phase1", "-o", "wide"]) == 64
    assert "write -- before what is for kubectl" in capsys.readouterr().err


def test_a_missing_talosctl_is_reported(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert cli.run(["talosctl", "phase1", "--", "version"]) == 1
    assert "there is no talosctl on the PATH" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["phase1 --target live", "phase9", "", "--nonsense"])
def test_kubectl_with_the_path_of_a_missing_kubeconfig_fails_and_never_uses_the_users_own(shell, arguments):
    kubectl = tools.find("kubectl").path
    for command in (
        f'{kubectl} --kubeconfig "$(fluobook kubeconfig {arguments})" config view',
        f'KUBECONFIG="$(fluobook kubeconfig {arguments})" {kubectl} config view',
    ):
        done = shell.runs(command, path=str(FLUOBOOK.parent))
        assert done.returncode == 1
        assert "current-context: own" not in done.stdout
        assert "/dev/null/no-kubeconfig" in done.stderr


def test_the_path_of_a_kubeconfig_is_all_that_is_printed(shell):
    path = shell.has("kubeconfig", "current-context: fluodata\n")
    done = shell.runs("fluobook kubeconfig phase1 --target live")
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
