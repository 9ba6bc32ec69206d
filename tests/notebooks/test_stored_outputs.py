"""The notebooks' outputs: nbval runs the references against one lab and compares what a person sees."""

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
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCES = "tests/notebooks/references"
PARTS = (REFERENCES, "params", "talos", "cluster-gitops", ".sops.yaml", ".gitignore", "pyproject.toml")

pytestmark = [pytest.mark.lab, pytest.mark.timeout(580)]


def nbval(root: Path, *notebooks: str) -> subprocess.CompletedProcess[str]:
    """Run nbval on some references of a repository."""
    paths = [f"{REFERENCES}/{name}" for name in notebooks] or [REFERENCES]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--timeout=300", "-p", "no:cacheprovider", *paths]
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLUOBOOK_RUN")}
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=560, check=False, env=env)


def copied(folder: Path) -> Path:
    """What of the repository the notebooks need, where it may be changed."""
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    return folder


def code_of(path: Path) -> list[tuple[str, str, list[str]]]:
    """The cells of a notebook: identifier, source and tags."""
    cells = json.loads(path.read_text())["cells"]
    return [(cell["id"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


def test_each_notebook_has_a_reference_with_the_same_cells() -> None:
    references = {path.name: code_of(path) for path in (ROOT / REFERENCES).glob("*.ipynb")}
    assert references == {path.name: code_of(path) for path in NOTEBOOKS}


@pytest.mark.parametrize("path", sorted((ROOT / REFERENCES).glob("*.ipynb")), ids=lambda path: path.name)
def test_a_reference_is_stored_as_it_looks_after_run_all(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    code = [cell for cell in cells if "nbval-skip" not in cell["metadata"].get("tags", ())]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]


def test_a_notebook_that_was_run_by_hand_is_cleaned(tmp_path: Path) -> None:
    """What JupyterLab adds goes, what a notebook needs stays, and a clean one is not written again."""
    path = tmp_path / "run.ipynb"
    notebook = json.loads((ROOT / REFERENCES / "01_create_vms.ipynb").read_text())
    notebook["metadata"] |= {"widgets": {"application/vnd.jupyter.widget-state+json": {}}}
    notebook["metadata"]["language_info"] |= {"version": "3.11.7", "mimetype": "text/x-python"}
    notebook["cells"][1]["metadata"] |= {"execution": {"iopub.status.busy": "2026-01-01"}, "collapsed": True}
    path.write_text(json.dumps(notebook))
    cleaned(path)
    assert json.loads(path.read_text()) == json.loads((ROOT / "notebooks" / "01_create_vms.ipynb").read_text())
    path.chmod(0o400)
    written = path.stat().st_mtime_ns
    cleaned(path)
    assert path.stat().st_mtime_ns == written


def cleaned(path: Path) -> None:
    """Clean a notebook as the hook of pre-commit does."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "notebooks.py"), "--clean", str(path)], check=True, timeout=200)


def test_every_notebook_shows_what_is_stored() -> None:
    done = nbval(ROOT)
    assert done.returncode == 0, done.stdout[-6000:]


def test_an_altered_output_is_noticed(tmp_path: Path) -> None:
    root = copied(tmp_path)
    path = root / REFERENCES / "01_create_vms.ipynb"
    notebook = json.loads(path.read_text())
    shown = [output for cell in notebook["cells"] for output in cell.get("outputs", ()) if "data" in output]
    shown[-1]["data"]["text/plain"] = ["nothing of the sort"]
    path.write_text(json.dumps(notebook))
    done = nbval(root, path.name)
    assert done.returncode == 1, done.stdout[-6000:]
    assert "nothing of the sort" in done.stdout
