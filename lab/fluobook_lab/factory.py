"""The Talos Image Factory: schematics, versions, extensions, images; also the downloads of the lab's Proxmox VE."""

from __future__ import annotations

import hashlib
import re
from io import StringIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.typedefs import Middleware

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults

FIELDS: dict[str, Any] = {
    "overlay": {"image": str, "name": str, "options": dict},
    "customization": {
        "embeddedMachineConfiguration": str,
        "extraKernelArgs": list,
        "meta": list,
        "systemExtensions": {"officialExtensions": list},
        "bootloader": str,
        "secureboot": {"enrollKeys": str, "includeWellKnownCertificates": bool},
        "diskImage": {"sectorSize": int},
    },
}
"""The fields of a schematic with their types, in canonical order."""
HOST = "factory.talos.dev"
VERSIONS = ("v1.12.11", "v1.13.8", "v1.13.9", "v1.13.10", "v1.14.0", "v1.14.1")
EXTENSIONS = tuple(
    f"siderolabs/{name}" for name in ("iscsi-tools", "nfs-utils", "qemu-guest-agent", "util-linux-tools")
)
SIZES = {"nocloud-amd64.iso": 117_440_512, "nocloud-amd64.raw.xz": 98_566_144, "nocloud-amd64.qcow2": 104_857_600}
"""Bytes of each kind of image."""
_IMAGE = re.compile(r"/image/(?P<schematic>[0-9a-f]{64})/(?P<version>v?[0-9][^/]*)/(?P<file>[^/]+)")
_CHUNK = bytes(1 << 20)


def canonical(text: str) -> str:
    """A schematic in the form that the factory stores: known fields in order, without empty ones, as YAML.

    Raises:
        ValueError: the text is not a schematic.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"yaml: {error}") from None
    kept = _known(document or {}, FIELDS, "schematic")
    overlay = {"overlay": kept["overlay"]} if "overlay" in kept else {}
    yaml = YAML()
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.width = 1_000_000
    output = StringIO()
    yaml.dump(overlay | {"customization": kept.get("customization", {})}, output)
    return output.getvalue()


def _known(document: Any, fields: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"yaml: cannot unmarshal {type(document).__name__} into {path}")  # noqa: TRY004 - of a text
    if unknown := sorted(document.keys() - fields.keys()):
        raise ValueError(f"yaml: field {unknown[0]} not found in type {path}")
    kept = {}
    for name, kind in fields.items():
        value = document.get(name)
        if isinstance(kind, dict):
            value = _known(value or {}, kind, name)
        elif value is not None and not isinstance(value, kind):
            raise ValueError(f"yaml: cannot unmarshal {value!r} into {path}.{name}")
        if value:
            kept[name] = value
    return kept


def id_of(text: str) -> str:
    """The id of a schematic: SHA-256 of its canonical form.

    Raises:
        ValueError: the text is not a schematic.
    """
    return hashlib.sha256(canonical(text).encode()).hexdigest()


class FactoryLab(HttpServer):
    """The lab's Image Factory.

    Args:
        clock: the lab's clock.
        faults: the faults to inject.
        versions: the available Talos versions.
    """

    def __init__(self, *, clock: Clock, faults: Faults, versions: Sequence[str] = VERSIONS) -> None:
        self.versions = tuple(f"v{version.removeprefix('v')}" for version in versions)
        empty = canonical("customization: {}")
        self.schematics = {id_of(empty): empty}
        self._faults = faults
        app = web.Application(middlewares=[self._injected_faults()])
        app.router.add_post("/schematics", self._create)
        app.router.add_get("/schematics/{id}", self._show)
        app.router.add_get("/versions", self._versions)
        app.router.add_get("/version/{version}/extensions/official", self._extensions)
        app.router.add_get("/image/{id}/{version}/{file}", self._image)
        super().__init__(app, clock)

    def image(self, url: str) -> int | None:
        """The size in bytes of the image at a URL; None if it does not exist."""
        parts = urlsplit(url)
        match = _IMAGE.fullmatch(parts.path)
        if parts.hostname != HOST or not match:
            return None
        return self._size(match["schematic"], match["version"], match["file"])

    def _size(self, schematic: str, version: str, file: str) -> int | None:
        return SIZES.get(file) if schematic in self.schematics and self._has(version) else None

    def _has(self, version: str) -> bool:
        return f"v{version.removeprefix('v')}" in self.versions

    def _injected_faults(self) -> Middleware:
        @web.middleware
        async def inject(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if self._faults.take("factory.503-once"):
                return web.Response(status=503, text="upstream connect error")
            return await handler(request)

        return inject

    async def _create(self, request: web.Request) -> web.Response:
        try:
            text = canonical(await request.text())
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
        missing = "siderolabs/iscsi-tools" if self._faults.on("factory.extension-missing") else ""
        names = [name for name in EXTENSIONS if name != missing]
        return web.json_response([{"name": name, "ref": f"ghcr.io/{name}:{version}", "digest": ""} for name in names])

    async def _image(self, request: web.Request) -> web.StreamResponse:
        size = self._size(*(request.match_info[part] for part in ("id", "version", "file")))
        if size is None:
            return web.Response(status=404, text="not found\n")
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = size
        await response.prepare(request)
        if request.method != "HEAD":
            for begin in range(0, size, len(_CHUNK)):
                await response.write(_CHUNK[: size - begin])
        await response.write_eof()
        return response
