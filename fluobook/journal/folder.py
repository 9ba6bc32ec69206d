"""The run folder: `runs/<time>-<phase>/`, made once and never overwritten."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fluobook.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path


def new_folder(parent: Path, phase: str) -> Path:
    """Make and return a new run folder below `parent`; two runs in one second get different ones."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = parent / (f"{stamp}-{phase}" if number == 1 else f"{stamp}-{phase}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise Refused(f"{parent} holds a thousand runs of this second", remedy="name another folder with --out")


def named_folder(path: Path) -> Path:
    """Make and return the run folder a person named.

    Raises:
        Refused: it exists and is not empty, or not a folder.
    """
    if path.exists() and not path.is_dir():
        raise Refused(f"{path} is not a folder", remedy="name a new folder with --out")
    if path.exists() and any(path.iterdir()):
        raise Refused(
            f"{path} holds something already",
            cause="a run folder is never overwritten",
            remedy="name a new folder with --out",
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def newest(parent: Path) -> Path | None:
    """The newest run folder below `parent`, if there is any."""
    return max((folder for folder in parent.glob("*T*Z-*") if folder.is_dir()), default=None)


def write_json(path: Path, data: Any) -> None:
    """Write JSON in one step: a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file in one step, synced, with the given permissions from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
