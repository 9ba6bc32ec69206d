"""The JupyterLab of a run by hand: it reads notebooks with what their kernels showed while no page was open.

`serve` starts it. It ends when its standard input closes, so it never outlives the run, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from fluobook.display.outputs import restore


class RecordedContents(AsyncLargeFileManager):  # type: ignore[misc, unused-ignore]
    """Files on disk; a notebook comes with the outputs that its kernel has kept."""

    async def get(self, path: str, content: bool = True, *args: Any, **options: Any) -> Any:
        """As Jupyter's own."""
        model = await super().get(path, content, *args, **options)  # type: ignore[no-untyped-call, unused-ignore]
        if content and model["type"] == "notebook":
            notebook = nbformat.from_dict(model["content"])
            if restore(notebook, Path(self.root_dir) / path.strip("/")):
                for cell in notebook.cells:
                    cell.metadata["trusted"] = True  # else JupyterLab removes the style of a table
                model["content"] = notebook
        return model


def serve() -> None:
    """Become JupyterLab; the arguments of the program are its options."""
    from jupyterlab.labapp import main  # noqa: PLC0415 (heavy, and only this process needs it)

    end_with_input()
    main()


def end_with_input() -> None:
    """Terminate this process once its standard input closes, which is when the process that started it is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with input", daemon=True).start()
