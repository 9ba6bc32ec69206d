"""What a kubelet serves to API servers once it has its certificate: its health, its pods' logs."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook.machine import pki

if TYPE_CHECKING:
    from fluobook.machine.pki import KeyPair

PORT = 10250


class KubeletServer:
    """HTTPS for clients with a certificate of the cluster, as a kubelet with webhook authorization lets in.

    Args:
        authority: PEM of the cluster's authority.
        node: whose kubelet it is.
    """

    def __init__(self, authority: str, node: str) -> None:
        self._authority, self._node = authority, node
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, identity: KeyPair) -> None:
        """Serve with a certificate that the cluster signed."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self._authority)
        context.verify_mode = ssl.CERT_REQUIRED
        pki.load_identity(context, identity)
        app = web.Application()
        app.router.add_get("/healthz", _health)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Serve no longer."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _logs(self, request: web.Request) -> web.Response:
        pod, container = request.match_info["pod"], request.match_info["container"]
        return web.Response(text=f"{container} of {pod} is played on {self._node}\n")


async def _health(_request: web.Request) -> web.Response:
    return web.Response(text="ok")
