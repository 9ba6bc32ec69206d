"""How JupyterLab reads the notebooks of a run by hand: with what their kernels showed while no page was open."""

from __future__ import annotations

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
