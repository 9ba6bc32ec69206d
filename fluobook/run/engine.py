"""The papermill engine of fluobook.

papermill calls a cell "completed" when its kernel died under it, and all later cells too; and a signal leaves a
notebook "running" for ever. This engine marks a cell completed only when it ran to its end, passes signals on to the
kernel so that the cell can say what it was doing, and speaks to kernels over IPC sockets that nobody else can reach.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

from fluobook.run.kernels import private_kernels

if TYPE_CHECKING:
    from fluobook.run.kernels import Place
    from fluobook.run.signals import Signals

ENGINE = "fluobook"

PATIENCE = 60
"""Seconds that a busy machine may take to start a kernel, and to deliver what a cell has put out."""


class TruthfulManager(NotebookExecutionManager):  # type: ignore[misc, unused-ignore]
    """Keeps the status of cells: completed means that it ran to its end. No cell begins once a signal came."""

    def __init__(self, nb: Any, signals: Signals, **options: Any) -> None:
        super().__init__(nb, progress_bar=False, **options)
        self._signals = signals

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """As papermill's, unless a signal came."""
        self._signals.check()
        super().cell_start(cell, cell_index=cell_index, **kwargs)

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Called in a `finally`: an exception on its way out means that the cell did not complete, or never began."""
        if not cell.metadata.papermill.get("start_time"):
            return
        if sys.exc_info()[0] is not None:
            self.cell_exception(cell, cell_index=cell_index)
        super().cell_complete(cell, cell_index=cell_index, **kwargs)

    def notebook_complete(self, **kwargs: Any) -> None:
        """As papermill's, but cells that never started stay pending."""
        never = [cell for cell in self.nb.cells if not cell.metadata.papermill.get("start_time")]
        super().notebook_complete(**kwargs)
        for cell in never:
            cell.metadata.papermill["status"] = self.PENDING
        self.save()


class Client(PapermillNotebookClient):  # type: ignore[misc, unused-ignore]
    """Executes cells, and lets signals through to the one at work."""

    def __init__(self, manager: TruthfulManager, signals: Signals, **options: Any) -> None:
        super().__init__(manager, timeout=None, iopub_timeout=PATIENCE, startup_timeout=PATIENCE, **options)
        self._signals = signals

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute a cell within earshot of signals."""
        self._signals.at_work(self.km.provisioner.process)
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self._signals.at_rest()


class Engine(NBClientEngine):  # type: ignore[misc, unused-ignore]
    """papermill's engine with the parts above, and private sockets."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Execute one notebook; papermill has injected its parameters."""
        manager = TruthfulManager(nb, kwargs["signals"], output_path=output_path, autosave_cell_every=5)
        manager.notebook_start()
        try:
            with private_kernels() as place:
                _execute(Client(manager, kwargs["signals"], kernel_name=kernel_name, config=place.config), place)
        finally:
            manager.notebook_complete()
        return manager.nb


def _execute(client: Client, place: Place) -> None:
    """Execute the notebook; a kernel that dies leaves its last words in the error, not on our terminal."""
    with place.words.open("wb") as words:
        try:
            client.execute(stdout=words, stderr=words)
        except DeadKernelError as error:
            raise DeadKernelError(f"{error}\n{place.last_words()}".strip()) from None


papermill_engines.register(ENGINE, Engine)
