"""How API servers reach kubelets here: nodes' addresses exist nowhere, so they ask a proxy for each by its address.

It is the API server's own way out (EgressSelectorConfiguration), so `nodes/NAME/proxy`, logs and health checks go the
way that they go on a site, TLS included; only the last hop is to a port of this machine.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook_lab.engines.pump import exchange

if TYPE_CHECKING:
    from fluobook_lab.engines.identities import Files

HEAD = 8192
OK, REFUSED = b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"


class Egress:
    """An HTTP CONNECT proxy on a socket file, for addresses that the lab plays.

    Attributes:
        places: ports of this machine by the `host:port` they stand for.
    """

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="fluobook-"))  # socket files need a short path
        self._server: asyncio.Server | None = None

    @property
    def path(self) -> Path:
        """The socket file."""
        return self._folder / "egress"

    async def start(self) -> None:
        """Listen from now on."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._answer, self.path)

    async def stop(self) -> None:
        """Listen no longer."""
        if self._server:
            self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write_settings(self, files: Files) -> None:
        """Write what tells an API server of it."""
        transport = {"uds": {"udsName": str(self.path)}}
        selection = {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}
        head = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
        files.write("egress.json", json.dumps({**head, "egressSelections": [selection]}))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            return
        _, _, rest = head.partition(b" ")
        port = self.places.get(rest.split(b" ", 1)[0].decode())
        writer.write(OK if port else REFUSED)
        if port is None:
            await writer.drain()
            writer.close()
            return
        await exchange(reader, writer, lambda: asyncio.open_connection("127.0.0.1", port))
