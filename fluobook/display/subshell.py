"""What pages ask about a kernel and its widgets is answered while a cell runs, in a subshell (a thread) of the kernel.

JupyterLab lets a widget speak to a subshell of its own, but a page that is loaded while a cell runs asks the main shell
first, and ipykernel 7.4 returns a click to the shell that spoke to the widget last. Both wait for the end of the cell.
So the kernel receives these messages in one subshell, whatever the page says.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

PATIENCE = 10.0
"""Seconds that the kernel may take to create the subshell."""

_ANSWERED = frozenset({"kernel_info_request", "comm_info_request", "comm_open", "comm_msg", "comm_close"})


def answers_while_busy(kernel: Any) -> bool:
    """Let a subshell answer what pages ask about this kernel and its widgets; returns whether one does.

    None does where no Jupyter server has started the kernel: there is no page.
    """
    if kernel is None or "JPY_SESSION_NAME" not in os.environ:
        return False
    known: bool | None = getattr(kernel, "_fluobook_answers", None)
    if known is None:
        known = kernel._fluobook_answers = _install(kernel)  # noqa: SLF001 (once for each kernel)
    return known


def _install(kernel: Any) -> bool:
    channel = getattr(kernel, "shell_channel_thread", None)
    if channel is None:
        return False
    installed: Future[None] = Future()

    def install() -> None:
        try:
            subshell = channel.manager._create_subshell()  # noqa: SLF001 (the public way is a message from a page)
            kernel.shell_stream.on_recv(_Receiver(kernel, subshell).receive, copy=False)
        except Exception as error:  # noqa: BLE001 (another ipykernel may be built otherwise)
            installed.set_exception(error)
        else:
            installed.set_result(None)

    channel.io_loop.add_callback(install)
    return installed.exception(PATIENCE) is None


class _Receiver:
    """Receives the messages of the shell channel, in the thread of that channel."""

    def __init__(self, kernel: Any, subshell: str) -> None:
        self._kernel = kernel
        self._subshell = subshell

    async def receive(self, frames: list[Any]) -> None:
        """Pass a message on: to the subshell, or as ipykernel does."""
        session = self._kernel.session
        identities, parts = session.feed_identities(frames, copy=False)
        try:
            message = session.deserialize(parts, content=False, copy=False)
        except (TypeError, ValueError):  # ipykernel reports it
            message = {"msg_type": ""}
        if message["msg_type"] not in _ANSWERED:
            await self._kernel.shell_channel_thread_main(frames)
            return
        message["header"]["subshell_id"] = self._subshell
        frames = [*session.serialize(message, identities), *message["buffers"]]
        manager = self._kernel.shell_channel_thread.manager
        manager.get_shell_channel_to_subshell_socket(self._subshell).send_multipart(frames)
