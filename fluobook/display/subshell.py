"""What pages ask about a kernel and its widgets is answered while a cell runs, in a subshell (a thread) of the kernel.

JupyterLab lets a widget speak to a subshell of its own, but a page that is loaded while a cell runs asks the main shell
first, and ipykernel 7.4 returns a click to the shell that spoke to the widget last. Both wait for the end of the cell.
So the kernel receives these messages in one subshell, whatever the page says.

A kernel of `fluobook open` loads this module as an extension when it starts, before it receives anything. In any other
kernel of JupyterLab, the cell that opens a runbook installs it.
"""

from __future__ import annotations

import os
from typing import Any

_ANSWERED = frozenset({"kernel_info_request", "comm_info_request", "comm_open", "comm_msg", "comm_close"})


def load_ipython_extension(shell: Any) -> None:
    """Let a subshell answer from the start of the kernel; IPython calls this."""
    answers_while_busy(shell.kernel)


def answers_while_busy(kernel: Any) -> bool:
    """Let a subshell answer what pages ask about this kernel and its widgets; returns whether one does.

    None does where no Jupyter server has started the kernel (there is no page), or where ipykernel has no subshells.
    """
    if kernel is None or "JPY_SESSION_NAME" not in os.environ:
        return False
    known: bool | None = getattr(kernel, "_fluobook_answers", None)
    if known is None:
        known = kernel._fluobook_answers = _install(kernel)  # noqa: SLF001 (once for each kernel)
    return known


def _install(kernel: Any) -> bool:
    channel = getattr(kernel, "shell_channel_thread", None)
    if channel is None or not hasattr(channel.manager, "_create_subshell"):
        return False
    kernel.shell_channel_thread_main = _Receiver(kernel).receive
    if getattr(kernel, "io_loop", None):  # the kernel has started, and receives by the method as it was
        channel.io_loop.add_callback(kernel.shell_stream.on_recv, kernel.shell_channel_thread_main, copy=False)
    return True


class _Receiver:
    """Receives the messages of the shell channel, in the thread of that channel."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._receive = kernel.shell_channel_thread_main
        self._subshell = ""

    async def receive(self, frames: list[Any]) -> None:
        """Pass a message on: to the subshell, or as ipykernel does."""
        session, manager = self._kernel.session, self._kernel.shell_channel_thread.manager
        identities, parts = session.feed_identities(frames, copy=False)
        try:
            message = session.deserialize(parts, content=False, copy=False)
        except (TypeError, ValueError):  # ipykernel reports it
            message = {"msg_type": ""}
        if message["msg_type"] not in _ANSWERED:
            await self._receive(frames)
            return
        self._subshell = self._subshell or manager._create_subshell()  # noqa: SLF001 (in public a page's request)
        message["header"]["subshell_id"] = self._subshell
        frames = [*session.serialize(message, identities), *message["buffers"]]
        manager.get_shell_channel_to_subshell_socket(self._subshell).send_multipart(frames)
