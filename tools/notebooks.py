"""Runs the notebooks once against a fresh lab and stores what nbval compares with from then on, beside the tests.

What is stored is what a person would see with nothing but Run All: parameters as they stand, no traces of the run.
The notebooks themselves carry no outputs: `--clean FILE…` removes them from notebooks that were run by hand.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from fluobook_lab import life
from nbclient import NotebookClient

from fluobook import params
from fluobook.files import temporary_folder
from fluobook.lab import programs as lab_programs
from fluobook.run import kernels

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
REFERENCES = ROOT / "tests" / "notebooks" / "references"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def main(arguments: Sequence[str]) -> int:
    """Clean the notebooks, then execute a copy of each in their order; returns the exit code."""
    for path in map(Path, arguments[1:]) if arguments[:1] == ["--clean"] else FOLDER.glob("*.ipynb"):
        clean(path)
    if arguments:
        return 0
    for path in REFERENCES.glob("*.ipynb"):
        path.unlink()
    folder = Path(tempfile.mkdtemp(prefix="fluobook-notebooks-"))
    chosen = params.load("phase1", root=ROOT)
    lab = life.start(chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), seed=1)
    os.environ |= {"FLUOBOOK_LAB": str(folder), "FLUOBOOK_APPROVE": "all", "FLUOBOOK_RENDER": "final"}
    try:
        for path in sorted(FOLDER.glob("*.ipynb")):
            store(path)
            print(path.name)
    finally:
        life.end(lab, forget=True)
    return 0


def clean(path: Path) -> None:
    """Remove what running a notebook adds: outputs, execution counts, widget state, versions. Writes only changes."""
    before = nbformat.read(path, as_version=4)
    notebook = nbformat.from_dict(before)
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        if cell.cell_type == "code":
            cell |= {"outputs": [], "execution_count": None}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    if notebook != before:
        nbformat.write(notebook, path)


def store(path: Path) -> None:
    """Execute a copy of one notebook and store it as nbval's reference."""
    notebook = nbformat.read(path, as_version=4)
    plain = nbformat.from_dict(notebook.metadata)
    with temporary_folder("kernel") as folder:
        resources = {"metadata": {"path": str(FOLDER)}}
        options = {"timeout": 300, "skip_cells_with_tag": "nbval-skip"}  # what would end the lab of those after it
        NotebookClient(notebook, config=kernels.sockets_in(folder), resources=resources, **options).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = plain
    nbformat.validate(notebook)
    nbformat.write(notebook, REFERENCES / path.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
