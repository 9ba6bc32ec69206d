"""The notebooks' stored outputs: nbval runs them against one lab and compares what a person sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fluobook.params import repository_root

if TYPE_CHECKING:
    from pathlib import Path

ROOT = repository_root()
PARTS = ("notebooks", "params", "talos", "cluster-gitops", ".sops.yaml", ".gitignore", "pyproject.toml")

pytestmark = [pytest.mark.lab, pytest.mark.timeout(580)]


def nbval(root: Path, *notebooks: str) -> subprocess.CompletedProcess[str]:
    """Run nbval on some notebooks of a repository."""
    paths = [f"notebooks/{name}" for name in notebooks] or ["notebooks"]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--timeout=300", "-p", "no:cacheprovider", *paths]
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLUOBOOK_RUN")}
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=560, check=False, env=env)


def copied(folder: Path) -> Path:
    """What of the repository the notebooks need, where it may be changed."""
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    return folder


def test_every_notebook_shows_what_is_stored() -> None:
    done = nbval(ROOT)
    assert done.returncode == 0, done.stdout[-6000:]


def test_an_altered_output_is_noticed(tmp_path: Path) -> None:
    root = copied(tmp_path)
    path = root / "notebooks" / "01_create_vms.ipynb"
    notebook = json.loads(path.read_text())
    shown = [output for cell in notebook["cells"] for output in cell.get("outputs", ()) if "data" in output]
    shown[-1]["data"]["text/plain"] = ["nothing of the sort"]
    path.write_text(json.dumps(notebook))
    done = nbval(root, path.name)
    assert done.returncode == 1, done.stdout[-6000:]
    assert "nothing of the sort" in done.stdout
