"""One run at a time for a cluster on this machine: a file lock that the kernel lets go when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fluobook.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL = 0.2
"""Seconds between two looks at a lock that somebody else holds."""


@contextmanager
def cluster_lock(folder: Path, *, patience: float, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of the cluster whose state folder this is.

    Args:
        folder: the cluster's state folder.
        patience: how many seconds to wait for another holder.
        on_wait: told once, with the holder's name, when there is one to wait for.

    Raises:
        Locked: the other holder did not finish in time.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a+") as file:
        _acquire(file.fileno(), folder / "lock", patience, on_wait)
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def _acquire(descriptor: int, path: Path, patience: float, on_wait: Callable[[str], None] | None) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text() or "another process"
        else:
            return
        if on_wait:
            on_wait(holder)
            on_wait = None
        if time.monotonic() > until:
            raise Locked(f"{holder} holds the lock on this cluster", remedy=f"wait until it ends, or end it ({path})")
        time.sleep(POLL)
