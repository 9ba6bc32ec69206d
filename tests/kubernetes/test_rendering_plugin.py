"""The KSOPS plugin runs wherever Python and the plugin are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fluobook.kubernetes import rendering


@pytest.mark.parametrize("folder", ["with a space", "x" * 130, "it's"])
def test_the_plugin_runs_from_a_folder_of_any_name(folder, tmp_path, monkeypatch):
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    rendering.install_ksops(tmp_path / folder / "plugins", "import sys\nprint(sys.argv[1:])\n")
    program = tmp_path / folder / "plugins" / "viaduct.ai" / "v1" / "ksops" / "ksops"
    done = subprocess.run([program, "a b", "c"], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout == "['a b', 'c']\n"
