"""How kernels of headless runs are reached: over sockets in a private folder, never over TCP."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def private_kernels() -> Iterator[Config]:
    """The configuration of a kernel manager whose sockets nobody else can reach.

    Without a path of its own every kernel of a folder would take the same sockets, and two runs would meet on them.
    """
    with tempfile.TemporaryDirectory(prefix="fluobook-kernel-") as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / "k")}})
