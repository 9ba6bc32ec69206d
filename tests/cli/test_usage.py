"""A wrong command line: exit code 64, the usage, and no stack of frames."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluobook import cli
from fluobook.errors import ParamsError
from fluobook.stages import catalogue


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["plan"], "PHASE"),
        (["plan", "phase1", "--nonsense"], "No such option"),
        (["lab", "up", "--speed", "fast"], "--speed"),
        (["explain", "F280"], "F28 etcd was bootstrapped before"),
        (["plan", "phase9"], "there is no phase9.yaml in params"),
        (["plan", "sites/nowhere.yaml"], "site/params/berlin.yaml"),
        (["plan", "phase1", "--set", "nodes"], "there is no = in it"),
        (["plan", "phase1", "--set", "=4"], "there is no key before the ="),
        (["lab", "up", "--speed", "0"], "'--speed': it must be greater than or equal to 0.01"),
        (["kubectl", "phase1", "--target", "LIVE"], "'--target': 'LIVE' is not one of"),
        (["run", "phase1", "--engine", "steam"], "--engine"),
        (["run", "phase1", "--engine", "real", "--target", "live"], "a live run has no lab"),
        (["run", "phase1", "--charts", "stand-ins", "--target", "live"], "leave --charts out"),
        (["open", "phase1", "--charts", "upstream", "--target", "live"], "--charts applies only to a lab"),
        (["run", "phase1", "--charts", "no-such-folder"], "no-such-folder does not exist"),
        (["charts", "diff", "phase1", "--charts", "stand-ins"], "stand-ins has nothing to compare"),
        (["lab", "up", "phase1", "--charts", "docs"], "docs has nothing that the tree names"),
        (["run", "phase1", "--from", "1", "--only", "2"], "exclude each other"),
        (["run", "phase1", "--only", "nonsense"], "there is no stage 'nonsense'"),
        (["run", "phase1", "tear_down"], "did you mean 'teardown'? Stages are preflight"),
        (["run", "phase1", "--approve", "create-vmz=abc"], "there is no stage 'create-vmz'"),
        (["rehearse", "phase1", "create-vms"], "create-vms is no work on a platform in operation"),
        (["rehearse", "phase1", "secrets"], "secrets is no work on a platform in operation"),
        (["rehearse", "phase1", "nodes", "--like", "dead"], "--like"),
    ],
)
def test_a_wrong_command_line_is_reported_with_exit_code_64(arguments, message, capsys):
    assert cli.run(arguments) == 64
    error_output = capsys.readouterr().err
    assert message in error_output
    assert not any(text in error_output for text in ("Traceback", "Value error", "Input should"))


@pytest.mark.parametrize("name", ["24", "etcd-snapshot", "24_etcd_snapshot", "notebooks/24_etcd_snapshot.ipynb"])
def test_a_stage_is_found_by_its_name_its_number_and_its_notebook(name):
    assert catalogue.find(name).name == "etcd-snapshot"


COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


def test_help_lists_every_command(capsys):
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert {"run", "plan", "render", "check", "doctor", "kubeconfig", "report", "tools", "version"} <= set(COMMANDS)
    assert all(f"  {command} " in listed for command in [*COMMANDS, "lab"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command, capsys):
    assert cli.run([command, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["run", "phase1", "--only", "preflight"], ["render", "phase1", "--gitops"]])
def test_a_place_that_cannot_be_written_is_named_with_what_helps(arguments, capsys, tmp_path):
    tmp_path.joinpath("file").touch()
    for out in ("file", "file/folder"):
        assert cli.run([*arguments, "--out", str(tmp_path / out)]) == 64
        error_output = capsys.readouterr().err
        assert f"{tmp_path / 'file'} is not a folder" in error_output
        assert "remedy" in error_output
        assert "Traceback" not in error_output


PATHS = (["run", "phase1", "--out"], ["render", "phase1", "--out"], ["report"], ["plan"])
SECRETS = ["render", "phase1", "--out", "out", "--secrets"]


@pytest.mark.parametrize(
    ("arguments", "name", "message"),
    [
        *((arguments, "", "an empty path does not exist") for arguments in (*PATHS[:3], SECRETS)),
        *((arguments, "loop", "is not a folder") for arguments in PATHS[:2]),
        *((arguments, "nothing", "nothing does not exist") for arguments in (["report"], SECRETS)),
        (["report"], "file", "file is not a folder"),
        (SECRETS, "folder", "folder is not a file"),
        (["plan"], "folder.yaml", "No such file or directory"),
        (["plan"], "./folder", "is not a regular file"),
        *((arguments, "closed", "closed cannot be written: permission denied") for arguments in PATHS[:2]),
        *((arguments, "closed", "closed cannot be read: permission denied") for arguments in (["report"],)),
        (SECRETS, "closed-file", "closed-file cannot be read: permission denied"),
    ],
)
@pytest.mark.usefixtures("_places")
def test_a_path_that_cannot_be_used_is_a_wrong_command_line(arguments, name, message, capsys):
    assert cli.run([*arguments, name]) == 64
    error_output = capsys.readouterr().err
    assert message in error_output
    assert "remedy" in error_output


@pytest.fixture
def _places(tmp_path, monkeypatch):
    for folder in ("folder", "closed"):
        tmp_path.joinpath(folder).mkdir()
    for file in ("file", "closed-file"):
        tmp_path.joinpath(file).touch()
    tmp_path.joinpath("loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: "closed" not in path.name)  # root may read and write everything


def test_who_reads_only_the_first_line_sees_no_error():
    plan = f"'{sys.executable}' -c 'from fluobook.cli import main; main()' plan phase1 --target live"
    process = subprocess.run(["bash", "-c", f"{plan} | true"], capture_output=True, text=True, timeout=200, check=True)
    assert "defect" not in process.stderr
    assert "Traceback" not in process.stderr


def test_a_locale_without_utf8_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "Größe.yaml").write_text("phase: Größe\n", encoding="utf-8")
    code = "from fluobook.cli import main; main()"
    command = [sys.executable, "-c", code, "plan", str(tmp_path / "Größe.yaml")]
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=env, timeout=200, check=False)
    assert done.returncode == ParamsError.exit_code
    assert "Größe" in done.stderr


def test_a_stage_of_day_two_is_run_when_it_is_named():
    assert [stage.name for stage in catalogue.numbered(["secrets", "1", "create-vms"])] == ["create-vms", "secrets"]


def test_explain_prints_an_entry_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "f28"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("F28 etcd was bootstrapped before\n")
    assert "next:   fluobook talosctl <phase> -- etcd members --nodes <address>" in printed


def test_the_command_line_loads_no_params_before_a_command_needs_them():
    code = "import sys, fluobook.cli; print(sorted({'pydantic', 'fluobook.params', 'kubernetes'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.strip() == "[]"
