"""A live table in a kernel of its own, followed while it changes, as a page that shows it would."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import KernelManager

from fluobook.waiting import Cancellation, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

    from tests.engines.conftest import RealLab

STARTUP, BOUND = 60, 180.0


class Watched:
    """The table: how often it was displayed, and its text at any time."""

    def __init__(self, client: BlockingKernelClient, call: str) -> None:
        self._client = client
        messages = self._run(f"table = {call}\ntable")
        self.displays = [each for each in messages if each["msg_type"] in ("display_data", "execute_result")]

    def until(self, wanted: Callable[[str], object]) -> str:
        """The first text of the table that is as wanted."""

        def current() -> str | None:
            printed = [each["content"]["text"] for each in self._run("print(repr(table))") if "text" in each["content"]]
            return text if wanted(text := "".join(printed)) else None

        return wait_until(
            current, what="the table", timeout=BOUND, cancellation=Cancellation(), interval=0.5, remedy="see the test"
        )

    def _run(self, code: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        self._client.execute_interactive(code, timeout=BOUND, output_hook=messages.append)
        assert not [each for each in messages if each["msg_type"] == "error"], messages
        return messages


@contextmanager
def watching(lab: RealLab, call: str) -> Iterator[Watched]:
    """Open the runbook on a lab as notebooks do, and show one of its tables as if somebody watched."""
    around = {**os.environ, "FLUOBOOK_LAB": str(lab.lab.folder), "FLUOBOOK_RENDER": "live"}
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(lab.lab.folder / "kernel"))
    manager.start_kernel(env=around, cwd=str(lab.context.root))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=STARTUP)
        client.execute_interactive(
            f"import fluobook\nrunbook = fluobook.open_runbook({lab.chosen.phase!r})",
            timeout=BOUND,
            output_hook=len,
        )
        yield Watched(client, call)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
