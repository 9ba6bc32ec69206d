"""Port-forward over a websocket: what somebody sends to a pod's port goes to the server that plays that pod.

Speaks `v4.channel.k8s.io`, as the Python client does; kubectl tunnels SPDY instead, which nothing here understands.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from fluobook_lab.kube.errors import bad_request
from fluobook_lab.kube.objects import labels_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook_lab.kube.objects import Obj

PROTOCOL = "v4.channel.k8s.io"
CHUNK = 1 << 16


@dataclass(frozen=True)
class Backend:
    """A server of the lab that plays a port of some pods.

    Args:
        namespace: the pods'.
        labels: which pods have.
        port: the container port.
        address: where the server listens.
    """

    namespace: str
    labels: dict[str, str]
    port: int
    address: tuple[str, int]

    def plays(self, pod: Obj, port: int) -> bool:
        """Whether it is that pod's port."""
        fits = self.labels.items() <= labels_of(pod).items()
        return fits and (namespace_of(pod), port) == (self.namespace, self.port)


async def forward(request: web.Request, pod: Obj, backends: Sequence[Backend]) -> web.WebSocketResponse:
    """Carry one port until either side closes.

    Raises:
        ApiError: 400, the request is no such websocket, or names no port.
    """
    port = int(request.query.get("ports") or 0)
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), autoping=True)
    if not port or not socket.can_prepare(request):
        raise bad_request("Upgrade request required")
    await socket.prepare(request)
    head = port.to_bytes(2, "little")
    for channel in (b"\x00", b"\x01"):
        await socket.send_bytes(channel + head)
    backend = next((one for one in backends if one.plays(pod, port)), None)
    if backend is None:
        await socket.send_bytes(b"\x01" + f"error forwarding port {port}: connection refused".encode())
    else:
        await _carry(socket, backend)
    await socket.close()
    return socket


async def _carry(socket: web.WebSocketResponse, backend: Backend) -> None:
    reader, writer = await asyncio.open_connection(*backend.address)

    async def back() -> None:
        while data := await reader.read(CHUNK):
            await socket.send_bytes(b"\x00" + data)
        await socket.close()

    carrying = asyncio.create_task(back())
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\x00":
                writer.write(message.data[1:])
                await writer.drain()
    finally:
        carrying.cancel()
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await carrying
