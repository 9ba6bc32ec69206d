"""The lab's Image Factory on a socket; it also tells the lab's Proxmox VE what can be downloaded from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from fluobook_lab.factory.schematic import canonical, id_of, schematic_of
from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.typedefs import Middleware

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults

VERSIONS = ("v1.12.11", "v1.13.8", "v1.13.9", "v1.13.10", "v1.14.0")
EXTENSIONS = (
    "siderolabs/iscsi-tools",
    "siderolabs/nfs-utils",
    "siderolabs/qemu-guest-agent",
    "siderolabs/util-linux-tools",
)
SIZES = {"nocloud-amd64.iso": 117_440_512, "nocloud-amd64.raw.xz": 98_566_144, "nocloud-amd64.qcow2": 104_857_600}
"""Bytes of each image that it makes."""
_IMAGE = re.compile(r"/image/(?P<schematic>[0-9a-f]{64})/(?P<version>v?[0-9][^/]*)/(?P<file>[^/]+)")
_CHUNK = bytes(1 << 20)


class FactoryLab(HttpServer):
    """An Image Factory.

    Args:
        clock: the world clock.
        faults: what is to go wrong.
        host: the name under which the world knows it.
        versions: the Talos versions that it has.
        extensions: the official extensions that it has, for every version.
        schematics: texts that somebody has registered before.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults,
        host: str = "factory.talos.dev",
        versions: Sequence[str] = VERSIONS,
        extensions: Sequence[str] = EXTENSIONS,
        schematics: Sequence[str] = ("customization: {}",),
    ) -> None:
        self.host = host
        self.versions = tuple(f"v{version.removeprefix('v')}" for version in versions)
        self.extensions = tuple(extensions)
        self.schematics = {id_of(text): canonical(schematic_of(text)) for text in schematics}
        self._clock = clock
        self._faults = faults
        app = web.Application(middlewares=[self._trouble()])
        app.router.add_post("/schematics", self._create)
        app.router.add_get("/schematics/{id}", self._show)
        app.router.add_get("/versions", self._versions)
        app.router.add_get("/version/{version}/extensions/official", self._extensions)
        app.router.add_get("/image/{id}/{version}/{file}", self._image)
        super().__init__(app, clock)

    def image(self, url: str) -> int | None:
        """The size in bytes of what a host that downloads from the URL gets; None if there is nothing."""
        parts = urlsplit(url)
        found = _IMAGE.fullmatch(parts.path)
        if parts.hostname != self.host or not found:
            return None
        return self._size(found["schematic"], found["version"], found["file"])

    def _size(self, schematic: str, version: str, file: str) -> int | None:
        if schematic not in self.schematics or not self._has(version):
            return None
        return SIZES.get(file)

    def _has(self, version: str) -> bool:
        return f"v{version.removeprefix('v')}" in self.versions

    def _trouble(self) -> Middleware:
        @web.middleware
        async def trouble(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if self._faults.take("factory.503-once"):
                return web.Response(status=503, text="upstream connect error")
            return await handler(request)

        return trouble

    async def _create(self, request: web.Request) -> web.Response:
        try:
            text = canonical(schematic_of(await request.text()))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        self.schematics[id_of(text)] = text
        return web.json_response({"id": id_of(text)}, status=201)

    async def _show(self, request: web.Request) -> web.Response:
        text = self.schematics.get(request.match_info["id"])
        if text is None:
            return web.Response(status=404, text="schematic not found\n")
        return web.Response(text=text, content_type="application/yaml")

    async def _versions(self, _: web.Request) -> web.Response:
        return web.json_response(list(self.versions))

    async def _extensions(self, request: web.Request) -> web.Response:
        version = request.match_info["version"]
        if not self._has(version):
            return web.Response(status=404, text=f"version {version} is not available\n")
        absent = "siderolabs/iscsi-tools" if self._faults.on("factory.extension-missing") else ""
        names = [name for name in self.extensions if name != absent]
        return web.json_response([{"name": name, "ref": f"ghcr.io/{name}:{version}", "digest": ""} for name in names])

    async def _image(self, request: web.Request) -> web.StreamResponse:
        size = self._size(*(request.match_info[part] for part in ("id", "version", "file")))
        if size is None:
            return web.Response(status=404, text="not found\n")
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        answer.content_length = size
        await answer.prepare(request)
        if request.method != "HEAD":
            for begin in range(0, size, len(_CHUNK)):
                await answer.write(_CHUNK[: size - begin])
        await answer.write_eof()
        return answer
