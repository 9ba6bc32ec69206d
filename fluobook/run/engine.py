"""The papermill engine of fluobook.

papermill marks a cell "completed" even when its kernel died, and all later cells too; a signal leaves a notebook
"running" for ever. This engine marks a cell completed only if it ran to its end, passes signals on to the kernel so
that the cell can report what it was doing, and talks to kernels over private IPC sockets. Every save of a notebook
passes the redactor on its way to the disk.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.iorw import LocalHandler, papermill_io

from fluobook.files import temporary_folder, write_text
from fluobook.redact import Redactor
from fluobook.run import kernels
from fluobook.run.signals import Signals

ENGINE = "fluobook"
SCHEME = "redacted://"

LAST_LINES = 60
"""Lines of the log of a kernel that ended which are shown."""
TIMEOUT = 60
"""Seconds that a busy machine may take to start a kernel, and to deliver the outputs of a cell."""


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
    """Executes cells, and passes signals on to the kernel of the running one."""

    def __init__(
        self,
        manager: TruthfulManager,
        folder: Path,
        signals: Signals,
        template: kernels.KernelTemplate,
        **options: Any,
    ) -> None:
        # The kernel has nothing to save after its last cell, so nothing waits for it.
        super().__init__(
            manager,
            timeout=None,
            iopub_timeout=TIMEOUT,
            startup_timeout=TIMEOUT,
            shutdown_kernel="immediate",
            config=kernels.sockets_in(folder),
            **options,
        )
        self._log, self._signals, self._template = folder / kernels.LOG, signals, template
        self._kernel: kernels.ForkedKernel | None = None

    def create_kernel_manager(self) -> Any:
        """A kernel manager whose kernel is forked from the template."""
        manager = super().create_kernel_manager()
        manager.provisioner = kernels.ForkingProvisioner(
            self._template, self._log, kernel_spec=manager.kernel_spec, parent=manager
        )
        return manager

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute a cell; meanwhile signals go to its kernel."""
        self._kernel = self.km.provisioner.process
        self._signals.cell_started(self._kernel)
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self._signals.cell_ended()

    def death(self, notebook: str) -> str:
        """How the kernel ended, and the end of its log."""
        code = self._kernel.wait() if self._kernel else None
        if code is None:
            ending = "did not start"
        else:
            ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:] if self._log.exists() else []
        return "\n".join([f"the kernel of {notebook} {ending}", *lines])


class Engine(NBClientEngine):  # type: ignore[misc, unused-ignore]
    """papermill's engine with the parts above."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Execute one notebook, into which papermill has injected its parameters.

        Raises:
            DeadKernelError: the kernel ended; the message says how, and contains the end of its log.
        """
        signals: Signals = kwargs["signals"]
        manager = TruthfulManager(nb, signals, output_path=output_path, autosave_cell_every=5)
        manager.notebook_start()
        with temporary_folder("kernel") as folder:
            client = Client(manager, folder, signals, kwargs["template"], kernel_name=kernel_name)
            try:
                client.execute()
            except DeadKernelError:
                raise DeadKernelError(client.death(Path(output_path or "").name)) from None
            finally:
                manager.notebook_complete()
        return manager.nb


class RedactedFiles(LocalHandler):  # type: ignore[misc, unused-ignore]
    """A file handler for papermill that masks every secret known to this process."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def write(self, buf: str, path: str) -> None:
        """Write the notebook atomically, masked."""
        write_text(Path(path.removeprefix(SCHEME)), self._redactor.text(buf))

    def read(self, path: str) -> Any:
        """Read a notebook back."""
        return super().read(path.removeprefix(SCHEME))

    def pretty_path(self, path: str) -> str:
        """The path without the scheme."""
        return path.removeprefix(SCHEME)


def redacted(path: Path, redactor: Redactor) -> str:
    """The output path for papermill that leads through the redactor."""
    papermill_io.register(SCHEME, RedactedFiles(redactor))
    return f"{SCHEME}{path}"


papermill_engines.register(ENGINE, Engine)
