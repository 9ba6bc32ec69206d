"""The kernel that this code runs in: whether somebody watches, what it shows, and what it must not send."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from fluobook.display.outputs import FOLDER, VIEW, Outputs
from fluobook.display.subshell import answers_while_busy
from fluobook.display.table import Table
from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.redact import Redactor


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def current_kernel() -> Any:
    """The kernel that this code runs in, or None."""
    return getattr(_shell(), "kernel", None)


def interactive() -> bool:
    """Whether somebody can be asked, and sees a display change.

    JupyterLab allows a kernel to ask for input; papermill and nbval do not. `FLUOBOOK_RENDER=live|final` overrides it.
    """
    if override := os.environ.get("FLUOBOOK_RENDER", ""):
        return override == "live"
    return bool(getattr(current_kernel(), "_allow_stdin", False))


def show(table: Table, **options: Any) -> Any:
    """Show a table: as a notebook output, or on the terminal. Returns a handle with `update`."""
    if _shell() is None:
        print(table.text(), flush=True)  # noqa: T201 (outside a notebook the terminal is the display)
        return _Printed()
    from IPython.display import display  # noqa: PLC0415 (heavy, and only available in a kernel)

    return display(table, **options)


class _Printed:
    """A display handle for the terminal."""

    def update(self, table: Table) -> None:
        print(table.text(), flush=True)  # noqa: T201


def bundle(table: Table) -> dict[str, str]:
    """A table as the data of an output."""
    return {"text/plain": table.text(), "text/html": table.html()}


def widget_bundle(widget: Any, table: Table) -> dict[str, Any]:
    """A widget as the data of an output, with a table for whoever shows no widgets."""
    return {VIEW: {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}} | bundle(table)


def update_display(data: dict[str, Any], display_id: str) -> None:
    """Replace the data of an output."""
    _shell().display_pub.publish(data, update=True, transient={"display_id": display_id})


def record_display(data: dict[str, Any], display_id: str) -> None:
    """Keep the data of an output for the record of a run by hand; the page is told by other means."""
    session = current_kernel().session
    if outputs := getattr(session, "_fluobook_outputs", None):
        content = {"data": data, "metadata": {}, "transient": {"display_id": display_id}}
        outputs.receive("update_display_data", session._fluobook_masked(content), request="", cell="", count=0)  # noqa: SLF001


def guard_kernel(redactor: Redactor, phase: str) -> None:
    """Mask secrets in everything that this kernel sends, and show fluobook's errors without stack frames.

    Outside a kernel nothing happens. A second call replaces the redactor.

    Args:
        redactor: knows the secrets.
        phase: how the commands that errors suggest name the platform (`errors.in_commands`).
    """
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return

    def show_error(shell: Any, kind: type[BaseException], error: BaseException, *_: Any, **__: Any) -> list[str]:
        presentation = present(error, phase=phase, with_probe=True)
        if rows := presentation.table():
            title, *failed = presentation.message.splitlines() or [""]
            rows = [("", line.strip()) for line in failed] + [(label, _aligned(text)) for label, text in rows]
            table = Table(title, ["", ""], rows)
            shell.display_pub.publish({"text/plain": presentation.message, "text/html": table.html()})
        lines = [f"{kind.__name__}: {presentation.text()}"]
        shell._showtraceback(kind, str(error), lines)  # noqa: SLF001 (the one place where ipykernel publishes an error)
        return lines

    shell.set_custom_exc((FluobookError,), show_error)
    if interactive():
        answers_while_busy(kernel)
    session = kernel.session
    send = getattr(session, "_fluobook_send", session.send)
    outputs = session._fluobook_outputs = getattr(session, "_fluobook_outputs", None) or _outputs()  # noqa: SLF001

    def masked(stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        content = redactor.data(content)
        if kwargs.get("buffers"):
            kwargs["buffers"] = [_masked(redactor, buffer) for buffer in kwargs["buffers"]]
        kind, parent, shown = msg_or_type, args[0] if args else kwargs.get("parent"), content
        if isinstance(msg_or_type, dict):
            msg_or_type = {**msg_or_type, "content": redactor.data(msg_or_type.get("content"))}
            kind, parent, shown = (msg_or_type.get(name) for name in ("msg_type", "parent_header", "content"))
        if outputs and isinstance(shown, dict):
            current, request = kernel.get_parent("shell"), _id_of(parent)
            cell = (current.get("metadata") or {}).get("cellId") if _id_of(current) == request else None
            outputs.receive(str(kind), shown, request=request, cell=cell or "", count=kernel.execution_count)
        return send(stream, msg_or_type, content, *args, **kwargs)

    session._fluobook_send = send  # noqa: SLF001 (the original, so that a second guard does not wrap the first)
    session.send, session._fluobook_masked = masked, redactor.data  # noqa: SLF001


def _outputs() -> Outputs | None:
    """What keeps the outputs of a notebook that JupyterLab has opened in a run folder; None for any other kernel."""
    run, notebook = os.environ.get("FLUOBOOK_RUN"), os.environ.get("JPY_SESSION_NAME")
    return Outputs(Path(run) / FOLDER / f"{Path(notebook).stem}.json") if run and notebook else None


def _aligned(text: str) -> str:
    """A text without the indentation that continues it on a terminal."""
    return "\n".join(line.strip() for line in text.splitlines())


def _masked(redactor: Redactor, buffer: Any) -> bytes:
    return redactor.text(bytes(buffer).decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _id_of(message: Any) -> str:
    """The id of a message, or of its header."""
    return str(((message or {}).get("header") or message or {}).get("msg_id", ""))
