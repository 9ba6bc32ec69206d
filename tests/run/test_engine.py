"""papermill's engine: the state of cells, and how a kernel ended."""

from __future__ import annotations

import nbformat
import papermill
import pytest
from nbclient.exceptions import DeadKernelError

from fluobook.run.engine import ENGINE
from fluobook.run.kernels import kernel_template
from fluobook.run.signals import Signals

KERNEL = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}


@pytest.fixture(scope="module")
def template():
    with kernel_template() as template:
        yield template


@pytest.fixture
def execute(tmp_path, template):
    def run(*cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=KERNEL)
        nbformat.write(notebook, tmp_path / "in.ipynb")
        papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            engine_name=ENGINE,
            progress_bar=False,
            signals=Signals(),
            template=template,
        )

    return run


def statuses(folder):
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    return [cell.metadata.papermill["status"] for cell in cells]


def test_cells_that_ran_are_completed(execute, tmp_path):
    execute("1 + 1", "2 + 2")
    assert statuses(tmp_path) == ["completed", "completed"]


@pytest.mark.parametrize(
    ("cell", "ending"),
    [
        ("os.kill(os.getpid(), 9)", "the kernel of out.ipynb was killed by SIGKILL"),
        ("os.kill(os.getpid(), 15)", "the kernel of out.ipynb was killed by SIGTERM"),
        ("os._exit(3)", "the kernel of out.ipynb ended with exit code 3"),
    ],
)
def test_the_error_says_how_a_kernel_ended(execute, cell, ending):
    with pytest.raises(DeadKernelError, match=ending):
        execute("import os", cell)


def test_the_log_of_a_kernel_that_ended_is_shown_and_cells_that_never_ran_are_pending(execute, tmp_path, capfd):
    with pytest.raises(DeadKernelError, match="Fatal Python error: Aborted"):
        execute("import faulthandler, os\nfaulthandler.enable(all_threads=False)", "os.abort()", "print('never')")
    assert statuses(tmp_path) == ["completed", "failed", "pending"]
    assert capfd.readouterr().err == ""
