"""How kernels of headless runs are reached: over sockets in a private folder, never over TCP."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "fluobook-kernel-"


LAST_LINES = 60
"""Lines of what a dead kernel wrote that are told."""


@dataclass(frozen=True)
class Place:
    """Where one kernel lives.

    Args:
        config: of a kernel manager whose sockets nobody else can reach.
        words: a file for what the kernel's process writes past the notebook: warnings as it ends, or why it died.
    """

    config: Config
    words: Path

    def last_words(self) -> str:
        """The end of what the kernel's process wrote."""
        return "\n".join(self.words.read_text(errors="replace").splitlines()[-LAST_LINES:])


@contextmanager
def private_kernels() -> Iterator[Place]:
    """A place for a kernel.

    Without a path of its own every kernel of a folder would take the same sockets, and two runs would meet on them.
    """
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        path = Path(folder)
        sockets = {"transport": "ipc", "ip": str(path / "k"), "connection_file": str(path / "connection.json")}
        yield Place(Config({"KernelManager": sockets}), path / "words.log")


def _sweep() -> None:
    """Remove what runs left that were killed: sockets, and the key that a kernel's messages are signed with."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
