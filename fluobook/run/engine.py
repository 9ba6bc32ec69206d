"""The papermill engine of fluobook.

papermill calls a cell "completed" when its kernel died under it, and all later cells too; and a signal leaves a
notebook "running" for ever. This engine marks a cell completed only when it ran to its end, passes signals on to the
kernel so that the cell can say what it was doing, and speaks to kernels over IPC sockets that nobody else can reach.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

from fluobook.run.kernels import private_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ENGINE = "fluobook"

GRACE = 10.0
"""Seconds that an interrupted cell gets to end by itself before its kernel is killed."""


class TruthfulManager(NotebookExecutionManager):  # type: ignore[misc, unused-ignore]
    """Keeps the status of cells: completed means that it ran to its end."""

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Called in a `finally`: an exception on its way out means that the cell did not complete."""
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


class Engine(NBClientEngine):  # type: ignore[misc, unused-ignore]
    """papermill's engine with the manager above, IPC transport and signals."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Execute one notebook; papermill has injected its parameters."""
        manager = TruthfulManager(nb, output_path=output_path, progress_bar=False, autosave_cell_every=5)
        manager.notebook_start()
        try:
            with private_kernels() as config:
                client = PapermillNotebookClient(
                    manager,
                    kernel_name=kernel_name,
                    timeout=None,
                    startup_timeout=kwargs.get("start_timeout", 60),
                    config=config,
                    # At its end a kernel is interrupted, and would say so on our terminal.
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )
                with passed_on(kwargs["signals"], client):
                    client.execute()
        finally:
            manager.notebook_complete()
        return manager.nb


papermill_engines.register(ENGINE, Engine)


class Signals:
    """What signal ended a run, if one did."""

    def __init__(self) -> None:
        self.caught: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 plus the signal's number, or None."""
        return None if self.caught is None else 128 + self.caught


@contextmanager
def passed_on(signals: Signals, client: Any) -> Iterator[None]:
    """While a notebook runs, let SIGINT and SIGTERM interrupt its cell, and kill its kernel after `GRACE` seconds."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        process = client.km.provisioner.process if client.km else None
        if signals.caught is not None and process:
            process.kill()
        signals.caught = number
        if process:
            process.send_signal(signal.SIGINT)
            killer = threading.Timer(GRACE, process.kill)
            killer.daemon = True
            killer.start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
