"""The live table in a page: an anywidget whose rows travel as messages, so that no notebook ever saves them."""

from __future__ import annotations

import gc
import sys
import threading
from importlib import resources
from typing import Any

import anywidget

from fluobook.display.rows import Rows
from fluobook.display.table import Table

UNACKNOWLEDGED = 30
"""Updates that are sent without a word from a page: when none is open, the server would keep them all for it."""

SWITCH = 0.0005
"""Seconds that a busy thread, such as the reader of flows, keeps others waiting; by default ten times as many."""

_FILES = resources.files(__package__)
_STYLE = "".join(_FILES.joinpath(name).read_text() for name in ("table.css", "live.css"))


class TableWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """One live table; safe for threads. Each page asks for what it lacks, and is then sent what changes."""

    _esm = _FILES.joinpath("table.js").read_text()
    _css = _STYLE

    def __init__(self) -> None:
        super().__init__()
        sys.setswitchinterval(SWITCH)
        gc.freeze()  # else each full collection goes through all modules, and stops every thread for 0.1 s
        self._rows, self._sent, self._allowed = Rows(), 0, 0
        self._guard = threading.Lock()
        self.on_msg(self._asked)

    def put(self, table: Table) -> None:
        """Show a table: send the pages what differs."""
        with self._guard:
            if self._rows.put(table) and self._allowed > 0:
                self._allowed -= 1
                self._send_since(self._sent)

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A page asks for what it lacks, and so acknowledges what it has."""
        with self._guard:
            self._allowed = UNACKNOWLEDGED
            if content.get("since") != self._rows.revision:
                self._send_since(content.get("since") or 0)

    def _send_since(self, revision: int) -> None:
        for message in self._rows.since(revision):
            self.send(message)
        self._sent = self._rows.revision
