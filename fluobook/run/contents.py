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
    """Files on disk; a notebook comes with the outputs that its kernel has kept, and is saved without widgets."""

    async def get(self, path: str, content: bool = True, *args: Any, **options: Any) -> Any:
        """As Jupyter's own."""
        model = await super().get(path, content, *args, **options)  # type: ignore[no-untyped-call, unused-ignore]
        if content and model["type"] == "notebook":
            notebook = nbformat.from_dict(model["content"])
            restore(notebook, Path(self.root_dir) / path.strip("/"))
            model["content"] = notebook
        return model

    async def save(self, model: dict[str, Any], path: str = "") -> Any:
        """As Jupyter's own."""
        if model.get("type") == "notebook" and model.get("content"):
            model["content"].get("metadata", {}).pop("widgets", None)
        return await super().save(model, path)  # type: ignore[no-untyped-call, unused-ignore]


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
