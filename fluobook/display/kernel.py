"""What fluobook does to the kernel it runs in: secrets are masked in every message, errors speak plainly."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Table
from fluobook.errors import FluobookError
from fluobook.failures import present

if TYPE_CHECKING:
    from fluobook.redact import Redactor


def guard_kernel(redactor: Redactor) -> None:
    """Mask secrets in all that this kernel sends, and show our errors as text instead of a stack of frames.

    Outside a kernel nothing happens. Calling it again changes the redactor in force.
    """
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return
    shell.set_custom_exc((FluobookError,), _show_error)
    session = kernel.session
    send = getattr(session, "_fluobook_send", session.send)

    def masked(stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(msg_or_type, dict):
            msg_or_type = {**msg_or_type, "content": redactor.data(msg_or_type.get("content"))}
        return send(stream, msg_or_type, redactor.data(content), *args, **kwargs)

    session._fluobook_send = send  # noqa: SLF001 (the original, so that a second guard does not wrap the first)
    session.send = masked


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _show_error(shell: Any, kind: type[BaseException], error: BaseException, *_: Any, **__: Any) -> list[str]:
    """Show one of our errors as text, and its explanation as a table where a browser can show one."""
    presentation = present(error)
    if rows := presentation.table():
        table = Table(presentation.message, ["", ""], rows)
        shell.display_pub.publish({"text/plain": presentation.message, "text/html": table.html()})
    lines = [f"{kind.__name__}: {presentation.text()}"]
    shell._showtraceback(kind, str(error), lines)  # noqa: SLF001 (the one place where ipykernel publishes an error)
    return lines


def ask_secret(question: str) -> str:
    """Ask the person for a secret; what is typed does not show."""
    return getpass.getpass(question)


def ask_person(question: str) -> str:
    """Ask the person in JupyterLab, or at the terminal."""
    return input(question)
