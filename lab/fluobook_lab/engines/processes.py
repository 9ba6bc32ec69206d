"""The programs of the engine as children of the lab: started, watched, told apart in their logs, and ended with it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import random
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENDING = 10.0
"""Real seconds that a program has to end by itself."""
TAIL = 15
"""Lines of a program's log that are told when it ended unasked."""
HASTE = {"GOGC": "400", "GOMEMLIMIT": "768MiB"}
"""Go's programs collect garbage less often, up to so much memory: a rehearsal is short of processors first."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_LOWEST = 15000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Running:
    """A program that was started; `failure` says what its log ended with, once it ended unasked."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    asked: bool = False
    failure: str = ""


class Processes:
    """Starts programs and ends them in reverse order.

    Args:
        folder: where their logs go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Running] = []
        self._watching: list[asyncio.Task[None]] = []

    async def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Running:
        """Start a program; its output goes to NAME.log.

        Args:
            name: of the log, and for messages.
            command: program and arguments.
            env: its whole environment; a bare one if not given.

        Raises:
            OSError: it cannot be run.
        """
        path = self._folder / f"{name}.log"
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**HASTE, **(env if env is not None else self._bare())},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        running = Running(name, process, path)
        self._running.append(running)
        self._watching.append(asyncio.create_task(_watch(running)))
        return running

    def _bare(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder)}

    async def end(self, running: Running) -> None:
        """End one program and wait until it is gone."""
        running.asked = True
        if running.process.returncode is None:
            with suppress(ProcessLookupError):
                running.process.terminate()
            try:
                await asyncio.wait_for(running.process.wait(), ENDING)
            except TimeoutError:
                running.process.kill()
                await running.process.wait()

    async def stop(self) -> None:
        """End all, the last one first."""
        for running in reversed(self._running):
            await self.end(running)
        await asyncio.gather(*self._watching)

    def failures(self) -> dict[str, str]:
        """What programs ended unasked, and the last they said."""
        return {running.name: running.failure for running in self._running if running.failure}


async def _watch(running: Running) -> None:
    code = await running.process.wait()
    if not running.asked:
        running.failure = f"exit code {code}\n{tail(running.log)}"
        _log.error("%s ended: %s", running.name, running.failure)


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def last_words(log: Path) -> str:
    """Why a program ended, as far as its log tells: its last error, without the advice on flags around it."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith(("Error:", "E", "F")) or "error" in line.lower()]
    return (told or lines or ["it said nothing"])[-1]


def free_port() -> int:
    """A loopback port that nobody has, and that the system hands to nobody who asks for any port.

    Programs cannot take over a socket, and some start a minute after their port was chosen: one of the range that
    other labs' servers and every outgoing connection draw from would be gone by then now and then.
    """
    below = _first_of_any() - 1
    for port in random.SystemRandom().sample(range(_LOWEST, below), min(below - _LOWEST, 1000)):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
    raise FluobookError("no port is free on loopback", remedy="end labs that are not needed: `fluobook lab status`")


def _first_of_any() -> int:
    """Where the range begins that the system takes ports from for whoever asks for any."""
    try:
        return max(int(_RANGE.read_text().split()[0]), _LOWEST + 1000)
    except OSError:
        return 32768


def die_with_parent() -> None:
    """Between fork and exec: whoever started the program takes it along, even when killed.

    At once, since nothing of a lab that was killed is looked at again: an API server that is asked to end and has lost
    its etcd tries for half a minute and more to take its leave there.
    """
    if _libc:
        _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
