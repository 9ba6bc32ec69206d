"""Runs the notebooks once against a fresh lab and stores their outputs, which nbval compares with from then on.

What is stored is what a person would see with nothing but Run All: parameters as they stand, no traces of the run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from fluobook_lab import life
from nbclient import NotebookClient

from fluobook import params
from fluobook.files import temporary_folder
from fluobook.lab import programs as lab_programs
from fluobook.run import kernels

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"


def main() -> int:
    """Execute every notebook in its order; returns the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="fluobook-notebooks-"))
    chosen = params.load("phase1", root=ROOT)
    lab = life.start(chosen, folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), seed=1)
    os.environ |= {"FLUOBOOK_LAB": str(folder), "FLUOBOOK_APPROVE": "all", "FLUOBOOK_RENDER": "final"}
    try:
        for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
            store(path)
            print(path.name)
    finally:
        life.end(lab, forget=True)
    return 0


def store(path: Path) -> None:
    """Execute one notebook in place."""
    notebook = nbformat.read(path, as_version=4)
    with temporary_folder("kernel") as folder:
        resources = {"metadata": {"path": str(FOLDER)}}
        NotebookClient(notebook, timeout=300, config=kernels.sockets_in(folder), resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = _plain(notebook.metadata)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def _plain(metadata: Any) -> Any:
    """Metadata without the Python version of whoever stored it."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return nbformat.from_dict({**metadata, "kernelspec": kernel, "language_info": {"name": "python"}})


if __name__ == "__main__":
    sys.exit(main())
