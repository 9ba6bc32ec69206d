"""Ways to a program's own port: from a reserved port of the lab, or from a socket file that a namespace can reach."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluobook_lab.engines.pump import exchange
from fluobook_lab.grpc import bound

if TYPE_CHECKING:
    import socket
    from pathlib import Path


class Passage:
    """Carries bytes both ways; TLS is the program's own business.

    Args:
        to: the program's port on loopback.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self, reserved: socket.socket) -> None:
        """Listen from now on at a port of the lab."""
        self._server = await asyncio.start_server(self._carry, sock=bound(reserved.getsockname()))

    async def open_file(self, path: Path) -> None:
        """Listen from now on at a socket file."""
        self._server = await asyncio.start_unix_server(self._carry, path)

    def close(self) -> None:
        """Refuse connections and cut those that are open, as a power cut does."""
        if self._server:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await exchange(reader, writer, lambda: asyncio.open_connection("127.0.0.1", self._to))
        finally:
            self._open.discard(writer)
