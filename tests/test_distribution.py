"""The two distributions: the content of their wheels, and fluobook without the lab."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from fluobook import cli, lab

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("folder", "package"), [(ROOT, "fluobook"), (ROOT / "lab", "fluobook_lab")])
def test_a_wheel_has_all_files_of_its_package_and_no_other_package(folder, package, tmp_path):
    listed = subprocess.run(["git", "ls-files", package], cwd=folder, check=True, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.splitlines() if (folder / name).exists()}
    [wheel] = WheelBuilder(str(folder)).build(directory=str(tmp_path))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert tracked
    assert tracked <= names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {package}


@pytest.mark.parametrize(
    "arguments", [["run", "phase1", "--approve", "all"], ["plan", "phase1"], ["lab", "up"], ["lab", "faults"]]
)
def test_without_the_lab_a_rehearsal_names_the_command_that_installs_it(arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(lab, "entry_points", lambda **_: ())
    monkeypatch.setitem(sys.modules, "fluobook_lab", None)
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    lab.provider.cache_clear()
    assert cli.run(arguments) == 1
    message = capsys.readouterr().err
    assert "the lab is not installed" in message
    assert 'pip install "fluobook[lab]"' in message
    assert "Traceback" not in message
