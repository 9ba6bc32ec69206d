"""Run folders, and the lock of a cluster on this machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fluobook.errors import DeadlineExceeded, Locked, Refused
from fluobook.files import remove_partial_files
from fluobook.waiting import Cancellation, wait_until


def new_folder(parent: Path, phase: str) -> Path:
    """Make and return a new run folder below `parent`: `<time>-<phase>`, with a number if that name is taken."""
    for folder in parent.glob("*T*Z-*"):
        remove_partial_files(folder)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = parent / (f"{stamp}-{phase}" if number == 1 else f"{stamp}-{phase}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise Refused(f"{parent} contains 999 runs of this second", remedy="name another folder with --out")


def require_new(path: Path) -> None:
    """Refuse a run folder that exists and is not empty, or is not a folder.

    Raises:
        Refused: it is.
    """
    if path.exists() and not path.is_dir():
        raise Refused(f"{path} is not a folder", remedy="name a new folder with --out")
    if path.exists() and any(path.iterdir()):
        raise Refused(
            f"{path} is not empty",
            cause="a run folder is never overwritten",
            remedy="name a new folder with --out",
        )


def named_folder(path: Path) -> Path:
    """Make and return the run folder that the user named.

    Raises:
        Refused: as in `require_new`.
    """
    require_new(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def newest_first(parent: Path) -> list[Path]:
    """The run folders below `parent`."""
    return sorted((folder for folder in parent.glob("*T*Z-*") if folder.is_dir()), reverse=True)


@contextmanager
def cluster_lock(
    folder: Path,
    *,
    patience: float,
    on_wait: Callable[[str], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> Iterator[None]:
    """Hold the lock of a cluster on this machine; the kernel releases it when the holder dies.

    Args:
        folder: the cluster's state folder.
        patience: how many seconds to wait for another holder.
        on_wait: called once with the holder's name, if there is one to wait for.
        cancellation: ends the wait early.

    Raises:
        Locked: the other process still holds it after `patience`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, holders = folder / "lock", list[str]()

    def acquired() -> bool | None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not holders:
                holders.append(path.read_text() or "another process")
                on_wait(holders[0])
            return None
        return True

    with path.open("a+") as file:
        try:
            wait_until(acquired, what=f"{path}", timeout=patience, cancellation=cancellation or Cancellation())
        except DeadlineExceeded:
            remedy = f"wait until it ends, or end it ({path})"
            raise Locked(f"{holders[0]} holds the lock on this cluster", remedy=remedy) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
