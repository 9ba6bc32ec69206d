"""The engine's programs as child processes: started, watched, with a log each, and ended with the lab."""

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

GRACE_PERIOD = 10.0
"""Real seconds that a program has to end after SIGTERM."""
TAIL = 15
"""Lines of a program's log in the report of its unexpected end."""
GO_SETTINGS = {"GOGC": "400", "GOMEMLIMIT": "3GiB"}
"""Go's programs collect garbage less often, up to so much memory: a rehearsal is limited by processors first. With the
CRDs of the real charts the API server holds over 1 GiB; near its limit it would collect garbage all the time."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_LOWEST_PORT = 15000
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Running:
    """A program that was started; `stopping` once its end was requested."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stopping: bool = False


class Processes:
    """Starts programs and ends them in reverse order.

    Args:
        folder: for their logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Running] = []
        self._watching: list[asyncio.Task[None]] = []

    async def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Running:
        """Start a program; its output goes to NAME.log.

        Args:
            name: of the log, and in messages.
            command: program and arguments.
            env: its whole environment; a minimal one if not given.

        Raises:
            OSError: it cannot be run.
        """
        path = self._folder / f"{name}.log"
        minimal = {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder)}
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**GO_SETTINGS, **(minimal if env is None else env)},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        running = Running(name, process, path)
        self._running.append(running)
        self._watching.append(asyncio.create_task(_watch(running)))
        return running

    async def end(self, running: Running) -> None:
        """End one program and wait for its end."""
        running.stopping = True
        if running.process.returncode is None:
            with suppress(ProcessLookupError):
                running.process.terminate()
            try:
                await asyncio.wait_for(running.process.wait(), GRACE_PERIOD)
            except TimeoutError:
                running.process.kill()
                await running.process.wait()

    async def stop(self) -> None:
        """End all programs, the last one first."""
        for running in reversed(self._running):
            await self.end(running)
        await asyncio.gather(*self._watching)


async def _watch(running: Running) -> None:
    code = await running.process.wait()
    if not running.stopping:
        _log.error("%s ended: exit code %s\n%s", running.name, code, tail(running.log))


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def last_error(log: Path) -> str:
    """The last error in a log, without the usage text around it."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("Error:", "E", "F")) or "error" in line.lower()]
    return (errors or lines or ["its log is empty"])[-1]


def log_failure(task: asyncio.Task[None]) -> None:
    """Log the error of a background task; a callback for `add_done_callback`."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("%s: %r", task.get_name(), error, exc_info=error)


def free_port() -> int:
    """A free loopback port outside the range from which the system assigns ports.

    Programs cannot inherit a socket, and some start a minute after their port was chosen: until then, a port of that
    range may be assigned to another lab's server or to an outgoing connection.

    Raises:
        FluobookError: no port is free.
    """
    try:
        upper = max(int(_EPHEMERAL_PORTS.read_text().split()[0]), _LOWEST_PORT + 1000) - 1
    except OSError:
        upper = 32767
    for port in random.SystemRandom().sample(range(_LOWEST_PORT, upper), min(upper - _LOWEST_PORT, 1000)):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
    raise FluobookError("no port is free on loopback", remedy="end labs that are not needed: `fluobook lab status`")


def die_with_parent() -> None:
    """Make the system kill this process when its parent dies; called between fork and exec.

    SIGKILL, since nothing of a killed lab is needed: an API server that receives SIGTERM after its etcd is gone would
    try for half a minute and more to write its last state.
    """
    if _libc:
        _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
