"""Ways between programs: port forwarders, the API servers' egress proxy, and a network namespace for one program.

Argo CD's application controller insists on listening on every address, so it runs in an empty network namespace:
`python -m fluobook_lab.engines.network FOLDER PORT,PORT… PROGRAM ARGUMENT…`. There, these loopback ports lead through
sockets in FOLDER (files know no network namespace) to the same ports outside, and nothing else can reach what the
program opens. Root may do so outside containers; others where the system lets users create namespaces. Without
arguments, the command only tests whether it may.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.errors import FluobookError
from fluobook.files import temporary_prefix
from fluobook_lab.engines.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

CHUNK = 1 << 16
CONNECTED, REFUSED = b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
"""SIOCGIFFLAGS, SIOCSIFFLAGS and IFF_UP of netdevice(7)."""
TEST_TIMEOUT = 60.0
"""Seconds for the test whether namespaces are available."""


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Connect) -> None:
    """Connect, and copy bytes in both directions until one side closes; if it cannot connect, close this side."""
    try:
        server_reader, server_writer = await connect()
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))
    finally:
        writer.close()
        server_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class Forwarder:
    """Forwards connections to a program's port on loopback; TLS passes through.

    Args:
        port: the program's port.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._connect = partial(asyncio.open_connection, "127.0.0.1", port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections on a bound socket."""
        self._server = await asyncio.start_server(self._forward, sock=sock)

    async def listen_at(self, path: Path) -> None:
        """Accept connections on a socket file."""
        self._server = await asyncio.start_unix_server(self._forward, path)

    def close(self) -> None:
        """Refuse new connections and abort the open ones, as a power failure does."""
        if self._server:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await forward(reader, writer, self._connect)
        finally:
            self._open.discard(writer)


class EgressProxy:
    """An HTTP CONNECT proxy on a socket file: API servers reach kubelets at node addresses that exist in the lab alone.

    It is the API server's own mechanism (EgressSelectorConfiguration), so `nodes/NAME/proxy`, logs and health checks
    take the same way as on a site, including TLS; only the last hop is a port of this machine.

    Attributes:
        ports: ports of this machine by the `host:port` that they stand for.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._folder = Path(tempfile.mkdtemp(prefix=temporary_prefix("net")))  # socket files need a short path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._handle, self._folder / "egress")

    async def stop(self) -> None:
        """Accept no more connections."""
        if self._server:
            self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def configuration(self) -> str:
        """The file that makes an API server use it."""
        transport = {"uds": {"udsName": str(self._folder / "egress")}}
        selection = {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}
        head = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
        return json.dumps({**head, "egressSelections": [selection]})

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            return
        address = request.partition(b" ")[2].split(b" ", 1)[0].decode()
        port = self.ports.get(address)
        writer.write(CONNECTED if port else REFUSED)
        if port is None:
            await writer.drain()
            writer.close()
            return
        await forward(reader, writer, partial(asyncio.open_connection, "127.0.0.1", port))


# ---- network namespaces ----------------------------------------------------------------------------------------------


def python_environment() -> dict[str, str]:
    """The environment in which another Python finds the modules that this one finds."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def require_namespaces() -> None:
    """Check that programs of this user may enter a network namespace, before a lab that needs one starts.

    Raises:
        FluobookError: they may not.
    """
    command, env = [sys.executable, "-m", __name__], {**os.environ, **python_environment()}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=TEST_TIMEOUT, check=False)
    if done.returncode:
        raise FluobookError(
            "the real engine needs a network namespace for Argo CD, and this system refuses one",
            cause=(done.stderr.splitlines() or ["the test printed nothing"])[-1],
            remedy="run it as root outside a container, or let users create namespaces (sysctl "
            "user.max_user_namespaces, user.max_net_namespaces, kernel.apparmor_restrict_unprivileged_userns); the "
            "embedded engine needs none",
        )


def enter_namespace() -> None:
    """Enter a network namespace with nothing but its own loopback.

    Raises:
        OSError: the system refuses.
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


async def run(folder: Path, ports: list[int], command: list[str]) -> int:
    """Forward the ports to the sockets in a folder and run the program; its exit code."""
    for port in ports:
        connect = partial(asyncio.open_unix_connection, folder / f"{port}")
        await asyncio.start_server(partial(forward, connect=connect), "127.0.0.1", port)
    process = await asyncio.create_subprocess_exec(*command, preexec_fn=die_with_parent)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.terminate)
    return await process.wait()


if __name__ == "__main__":
    enter_namespace()
    if sys.argv[1:]:
        sys.exit(asyncio.run(run(Path(sys.argv[1]), [int(port) for port in sys.argv[2].split(",")], sys.argv[3:])))
