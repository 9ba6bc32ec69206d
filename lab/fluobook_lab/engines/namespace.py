"""A network namespace for one program that insists on listening at every address: Argo CD's application controller.

`python -m fluobook_lab.engines.namespace FOLDER PORT,PORT… PROGRAM ARGUMENT…` leaves the machine's network for an empty
one, in which these loopback ports lead through sockets in FOLDER (files know no network namespace) to the same ports
outside. Whatever the program opens, nobody but itself can reach. Root may do so outside containers; others where the
system lets users make namespaces of their own. Without arguments it only tries whether it may.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.errors import FluobookError
from fluobook_lab.engines.processes import die_with_parent
from fluobook_lab.engines.pump import exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
"""SIOCGIFFLAGS, SIOCSIFFLAGS and IFF_UP of netdevice(7)."""
TRYING = 60.0
"""Seconds that the trial may take."""


def leave_network() -> None:
    """Go where there is nothing but a loopback of our own.

    Raises:
        OSError: the system does not let us.
    """
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    as_root = uid == 0 and not libc.unshare(NEW_NETWORK)
    if not as_root and libc.unshare(NEW_USER | NEW_NETWORK):
        raise OSError(ctypes.get_errno(), f"no network namespace: {os.strerror(ctypes.get_errno())}")
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket() as sock:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("16xh", fcntl.ioctl(sock, GET_FLAGS, name + bytes(24)))[0]
        fcntl.ioctl(sock, SET_FLAGS, name + struct.pack("h", flags | UP) + bytes(22))


def require() -> None:
    """See that programs of this user may leave the network, before a lab that needs it is begun.

    Raises:
        FluobookError: they may not.
    """
    command = [sys.executable, "-m", __name__]
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    tried = subprocess.run(command, capture_output=True, text=True, env=around, timeout=TRYING, check=False)
    if tried.returncode:
        raise FluobookError(
            "the real engine needs a network namespace for Argo CD, and this system refuses one",
            cause=(tried.stderr.splitlines() or ["it says nothing"])[-1],
            remedy="run it as root outside a container, or let users make namespaces (sysctl user.max_user_namespaces, "
            "user.max_net_namespaces, kernel.apparmor_restrict_unprivileged_userns); the embedded engine needs none",
        )


async def run(folder: Path, ports: list[int], command: list[str]) -> int:
    """Lead the ports outside and run the program; its exit code."""
    for port in ports:
        await asyncio.start_server(_to(folder / f"{port}"), "127.0.0.1", port)
    process = await asyncio.create_subprocess_exec(*command, preexec_fn=die_with_parent)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.terminate)
    return await process.wait()


def _to(path: Path) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await exchange(reader, writer, lambda: asyncio.open_unix_connection(path))

    return carry


if __name__ == "__main__":
    leave_network()
    if sys.argv[1:]:
        sys.exit(asyncio.run(run(Path(sys.argv[1]), [int(port) for port in sys.argv[2].split(",")], sys.argv[3:])))
