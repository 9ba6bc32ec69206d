"""The lab's own process: `python -m fluobook_lab FOLDER` plays what `FOLDER/order.json` asks for until it is ended."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from fluobook import params
from fluobook_lab.argocd.repo_server import Programs
from fluobook_lab.world import World

LOOK = 0.5
"""Seconds between two looks at the owner."""


def main() -> None:
    """Read the order and play it."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    folder = Path(sys.argv[1])
    order = json.loads((folder / "order.json").read_text())
    with (folder / "alive").open("w") as mark:
        # Held while this process lives, and no longer: a process's number may be somebody else's by now.
        fcntl.flock(mark, fcntl.LOCK_EX)
        asyncio.run(_play(folder, order))
    if order["owner"] is not None and not _lives(order["owner"]):
        shutil.rmtree(folder, ignore_errors=True)  # it had no time to clear up


async def _play(folder: Path, order: dict[str, Any]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    root = Path(order["root"])
    platform = params.parse({"phase": order["phase"], "platform": order["platform"]}, root=root).platform
    world = World(
        platform,
        root=root,
        folder=folder,
        programs=Programs(**{name: Path(path) for name, path in order["programs"].items()}),
        speed=order["speed"],
        seed=order["seed"],
        faults=order["faults"],
        engines=order["engines"],
    )
    await world.start()
    # A person or a test asks for the story so far with SIGUSR1: it is written beside lab.json.
    loop.add_signal_handler(signal.SIGUSR1, _tell, folder, world)
    await _until(ended, order["owner"])
    _tell(folder, world)
    await world.stop()


async def _until(ended: asyncio.Event, owner: int | None) -> None:
    """Wait until the lab is ended, or its owner is gone."""
    while not ended.is_set() and (owner is None or _lives(owner)):
        try:
            await asyncio.wait_for(ended.wait(), LOOK if owner else None)
        except TimeoutError:
            continue


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _tell(folder: Path, world: World) -> None:
    partial = folder / ".world.json"
    partial.write_text(json.dumps(world.story()))
    partial.replace(folder / "world.json")


if __name__ == "__main__":
    main()
