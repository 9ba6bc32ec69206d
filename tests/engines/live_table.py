"""A notebook's cell that a person watches: run in a kernel of its own, its table followed as it is redrawn."""

from __future__ import annotations

import os
import queue
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jupyter_client.manager import start_new_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

    from tests.engines.conftest import RealLab

STARTUP, BOUND = 60, 180.0
DRAWN = ("display_data", "update_display_data")


class Watched:
    """The cell's one table, as text."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self.drawn: list[str] = []
        self.displays: set[str] = set()

    def until(self, wanted: Callable[[str], object]) -> str:
        """The first table that is as wanted."""
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            assert message["msg_type"] != "error", content
            if message["msg_type"] in DRAWN:
                self.displays.add(content["transient"]["display_id"])
                self.drawn.append(content["data"]["text/plain"])
                if wanted(self.drawn[-1]):
                    return self.drawn[-1]
        raise AssertionError(f"the table was never so; last:\n{self.drawn[-1] if self.drawn else 'nothing'}")


@contextmanager
def watching(lab: RealLab, cell: str) -> Iterator[Watched]:
    """Open the runbook on a lab as notebooks do, run the cell as if somebody watched, and interrupt it in the end."""
    around = {**os.environ, "FLUOBOOK_LAB": str(lab.lab.folder), "FLUOBOOK_RENDER": "live"}
    manager, client = start_new_kernel(
        startup_timeout=STARTUP, kernel_name="python3", env=around, cwd=str(lab.context.root)
    )
    try:
        client.execute_interactive(
            f"import fluobook\nrunbook = fluobook.open_runbook({lab.chosen.phase!r})",
            timeout=BOUND,
            output_hook=len,
        )
        client.execute(cell)
        yield Watched(client)
        manager.interrupt_kernel()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
