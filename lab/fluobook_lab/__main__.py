"""The lab's process: `python -m fluobook_lab FOLDER` runs the environment that `FOLDER/order.json` describes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from fluobook import params
from fluobook.files import is_alive, write_text
from fluobook_lab.argocd.repo_server import Programs
from fluobook_lab.charts.sources import Folder
from fluobook_lab.environment import Environment

OWNER_CHECK = 0.5
"""Seconds between two checks that the owner exists."""


def main() -> None:
    """Read the order and run the environment until it is ended or its owner is gone."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    folder = Path(sys.argv[1])
    order = json.loads((folder / "order.json").read_text())
    with (folder / "alive").open("w") as mark:
        # The lock is held exactly as long as this process lives; its number may later belong to another process.
        fcntl.flock(mark, fcntl.LOCK_EX)
        asyncio.run(_run(folder, order))
    if order["owner"] is not None and not is_alive(order["owner"]):
        shutil.rmtree(folder, ignore_errors=True)  # the owner was killed before it could clean up


async def _run(folder: Path, order: dict[str, Any]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    root = Path(order["root"])
    platform = params.parse({"phase": order["phase"], "platform": order["platform"]}, root=root).platform
    programs = Programs(**{name: Path(path) for name, path in order["programs"].items()})
    environment = Environment(
        platform,
        root=root,
        folder=folder,
        programs=programs,
        speed=order["speed"],
        seed=order["seed"],
        faults=order["faults"],
        engines=order["engines"],
        charts=order["charts"],
        real=Folder(Path(order["folder"]), git=programs.git, causes=order["causes"]) if order["folder"] else None,
    )
    await environment.start()
    # `fluobook lab status` and tests request the activity with SIGUSR1; it is written beside lab.json.
    loop.add_signal_handler(signal.SIGUSR1, _write_activity, folder, environment)
    loop.add_signal_handler(signal.SIGUSR2, _change, folder, environment)
    owner = order["owner"]
    while not ended.is_set() and (owner is None or is_alive(owner)):
        try:
            await asyncio.wait_for(ended.wait(), OWNER_CHECK if owner else None)
        except TimeoutError:
            continue
    _write_activity(folder, environment)
    await environment.stop()


def _write_activity(folder: Path, environment: Environment) -> None:
    write_text(folder / "activity.json", json.dumps(environment.activity()))


def _change(folder: Path, environment: Environment) -> None:
    """Carry out what the files say: faults to inject instead of those before, a platform to resemble."""
    for name, carry_out in (
        ("faults.json", environment.change_faults),
        ("state.json", partial(_resemble, environment)),
    ):
        if (path := folder / name).exists():
            changed = asyncio.create_task(carry_out(json.loads(path.read_text())), name=name)
            changed.add_done_callback(partial(_changed, path))


async def _resemble(environment: Environment, state: Any) -> list[str]:
    from fluobook_lab.likeness import resemble  # noqa: PLC0415  the real engine does without

    return await resemble(environment, state)


def _changed(path: Path, done: asyncio.Task[list[str] | None]) -> None:
    """Remove the file of what is carried out, and write what it returned."""
    if (notes := done.result()) is not None:
        write_text(path.parent / "resembled.json", json.dumps(notes))
    path.unlink()


if __name__ == "__main__":
    main()
