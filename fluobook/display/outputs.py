"""What the cells of a kernel show, kept in the run folder.

JupyterLab shows and saves the outputs that reach the page which ran the cell. A page that is closed or loaded again
misses what comes afterwards, so the kernel keeps it too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fluobook.clients.answers import mismatch
from fluobook.errors import BadFile
from fluobook.files import is_alive, parse_json, read_text, write_json

FOLDER = ".outputs"
"""The folder of a run folder with one file for each notebook."""
INTERVAL = 1.0
"""Seconds between two writes while a cell runs."""

VIEW = "application/vnd.jupyter.widget-view+json"
"""The type of a widget in an output: of no use once its kernel is gone, which then leaves the other types."""

_SHOWN = ("stream", "display_data", "execute_result", "error")


class Outputs:
    """The outputs of a notebook's cells since its kernel started; safe for threads.

    Args:
        path: the file that keeps them.
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._cells: dict[str, dict[str, Any]] = {}
        self._requests: dict[str, dict[str, Any]] = {}
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._written = 0.0
        self._later: threading.Timer | None = None
        self._lock = threading.Lock()

    def receive(self, kind: str, content: Mapping[str, Any], *, request: str, cell: str, count: int) -> None:
        """Take in one message to the page, without secrets.

        Args:
            kind: the message's type.
            content: the message's content.
            request: the id of the request to execute that it answers.
            cell: the id of the cell of that request, or nothing if it is not the one that runs now.
            count: the number of that execution.
        """
        with self._lock:
            if cell and request not in self._requests:
                self._requests[request] = self._cells[cell] = {
                    "execution_count": count,
                    "outputs": [],
                    "pid": os.getpid(),
                }
            executed = self._requests.get(request)
            display = (content.get("transient") or {}).get("display_id", "")
            if kind == "update_display_data":
                for output in self._displays.get(display, ()):
                    output.update({name: content[name] for name in ("data", "metadata")})
            elif executed is None or kind not in (*_SHOWN, "status"):
                return
            elif kind in _SHOWN:
                self._show(executed["outputs"], kind, content, display)
            if executed is not None:
                executed["changed"] = self._clock()
            if content.get("execution_state") == "idle" or self._clock() - self._written >= INTERVAL:
                self._write()
            elif self._later is None:  # a cell may show nothing else for minutes: while it waits for a click
                self._later = threading.Timer(INTERVAL, self._write_later)
                self._later.daemon = True
                self._later.start()

    def _write_later(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        self._written, self._later = self._clock(), None
        with suppress(BadFile, OSError):
            self._path.parent.mkdir(exist_ok=True)
            write_json(self._path, self._cells)

    def _show(self, outputs: list[dict[str, Any]], kind: str, content: Mapping[str, Any], display: str) -> None:
        if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
            return
        outputs.append({"output_type": kind, **{name: content[name] for name in content if name != "transient"}})
        if display:
            self._displays.setdefault(display, []).append(outputs[-1])


_RECORDED = {
    "*": {"outputs": [{"output_type": str}], "execution_count?": int, "changed?": (int, float), "pid?": int},
}


def restore(notebook: Any, path: Path) -> bool:
    """Put into a notebook what its kernel has shown and no page has saved; returns whether there was anything.

    That is what changed after the notebook was saved, and what the same execution of a cell showed later. A cell that
    a person has cleared since stays empty.

    Args:
        notebook: the notebook as it was read.
        path: its file.
    """
    import nbformat  # noqa: PLC0415 (heavy, and no kernel needs it)

    recorded: Any = {}
    with suppress(BadFile, OSError):
        recorded = parse_json(read_text(path.parent / FOLDER / f"{path.stem}.json", follow=False), path, strict=False)
        saved = path.stat().st_mtime
    if mismatch(recorded, _RECORDED):
        recorded = {}
    changed = False
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        known = recorded.get(cell.get("id"))
        if known and cell.outputs != known["outputs"]:
            newer = cell.execution_count == known.get("execution_count") or known.get("changed", 0.0) > saved
            if newer or any(VIEW in output.get("data", {}) for output in cell.outputs):
                cell.outputs, cell.execution_count = nbformat.from_dict(known["outputs"]), known.get("execution_count")
                changed = True
        if known and cell.outputs == known["outputs"]:
            cell.metadata["trusted"] = True  # else JupyterLab removes the style of a table; no file contains this
        if not (known and known.get("pid") and is_alive(known["pid"])):
            dead = [output.data for output in cell.outputs if VIEW in output.get("data", {})]
            for data in dead:
                del data[VIEW]
            changed = changed or bool(dead)
    return changed
