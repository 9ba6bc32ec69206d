"""Serves the stand-in charts over HTTP, a repository a place: `/charts/helm.cilium.io/index.yaml` and archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook_lab.charts.package import Package, index, package
from fluobook_lab.charts.pins import Pin, charts, place
from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock

HERE = Path(__file__).parent
STANDINS = HERE / "standins"
GENERIC = HERE / "generic"


class ChartServer(HttpServer):
    """The chart repositories that a platform tree names.

    The tree is looked at anew at each request, so a version pinned while the lab runs is there at once; a version
    that was served once stays.

    Args:
        tree: the folder of the Applications (cluster-gitops).
        clock: the world clock.
        standins: the folder of the stand-in charts: <host and path>/<chart>, or <host>/<chart>.
    """

    def __init__(self, tree: Path, clock: Clock, *, standins: Path = STANDINS) -> None:
        app = web.Application()
        app.router.add_get("/charts/{place:.+}/{file}", self._answer)
        super().__init__(app, clock)
        self._tree = tree
        self._standins = standins
        self._packages: dict[Pin, Package] = {}
        self._extra: list[Pin] = []

    def url(self, repository: str) -> str:
        """Where the lab's copy of a chart repository is, once the server listens."""
        return f"http://127.0.0.1:{self.port}/charts/{place(repository)}"

    def mirrors(self) -> dict[str, str]:
        """Every chart repository that the tree names, and where the lab's copy is (`platform.gitops.mirrors`)."""
        return {pin.repository: self.url(pin.repository) for pin in charts(self._tree)}

    def pin(self, repository: str, chart: str, version: str) -> None:
        """Serve one more version, for what is not in the tree (an upgrade that is only tried)."""
        self._extra.append(Pin(repository, chart, version))

    def packages(self, where: str) -> list[Package]:
        """The charts of one repository, by its place; [] if the tree does not name it."""
        for pin in [*charts(self._tree), *self._extra]:
            if pin not in self._packages:
                self._packages[pin] = package(self._folder(pin), pin.chart, pin.version)
        return [one for pin, one in sorted(self._packages.items(), reverse=True) if pin.place == where]

    def _folder(self, pin: Pin) -> Path:
        host = pin.place.partition("/")[0]
        candidates = [self._standins / pin.place / pin.chart, self._standins / host / pin.chart]
        return next((folder for folder in candidates if folder.is_dir()), GENERIC)

    async def _answer(self, request: web.Request) -> web.Response:
        where, file = request.match_info["place"], request.match_info["file"]
        packages = self.packages(where)
        if packages and file == "index.yaml":
            url = f"{request.scheme}://{request.host}/charts/{where}"
            return web.Response(text=index(packages, url), content_type="text/yaml")
        for one in packages:
            if one.file == file:
                return web.Response(body=one.archive, content_type="application/gzip")
        raise web.HTTPNotFound
