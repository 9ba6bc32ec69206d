"""The lab's chart repositories: real charts or small stand-ins, served in the versions that the platform tree pins."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from aiohttp import web

from fluobook.kubernetes import manifests
from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook_lab.clock import Clock

HERE = Path(__file__).parent
STANDINS, GENERIC, GIT_STANDINS = HERE / "standins", HERE / "generic", HERE / "standins-git"
CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, order=True)
class Pin:
    """One chart, or one git repository, in one version, as an Application names it."""

    repository: str
    chart: str
    version: str

    @property
    def id(self) -> str:
        """All of it, in one text."""
        return f"{self.repository} {self.chart} {self.version}"

    @property
    def path(self) -> str:
        """Host and path of the repository: the folder of its stand-ins."""
        return repository_path(self.repository)


def repository_path(url: str) -> str:
    """Host and path of a URL, without slash or .git at the end: "github.com/rabbitmq/cluster-operator"."""
    if "://" not in url and "@" in url:  # git@host:owner/repository
        url = "ssh://" + url.replace(":", "/", 1)
    parts = urlsplit(url if "://" in url else f"oci://{url}")
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/").removesuffix(".git").replace(":", "_")


def charts(*trees: Path) -> list[Pin]:
    """The charts that the Applications below the folders name."""
    return sorted({pin for pin in _pins(trees) if pin.chart})


def repositories(*trees: Path) -> list[Pin]:
    """The git repositories that the Applications below the folders name, with their revisions."""
    return sorted({pin for pin in _pins(trees) if not pin.chart})


def _pins(trees: tuple[Path, ...]) -> Iterator[Pin]:
    for file in sorted(file for tree in trees for file in tree.rglob("*.yaml")):
        stat = file.stat()
        yield from _pins_of(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _pins_of(file: Path, _changed: int, _size: int) -> tuple[Pin, ...]:
    """The pins of one file, read again only when it changed: every request reads the whole tree."""
    try:
        documents = manifests.load(file.read_text())
    except (yaml.YAMLError, ValueError):  # the file is being written, or is no manifest
        return ()
    specs = [document.get("spec") or {} for document in documents if document.get("kind") == "Application"]
    sources = [source for spec in specs for source in (spec.get("source"), *(spec.get("sources") or ())) if source]
    return tuple(
        Pin(source.get("repoURL", ""), source.get("chart", ""), str(source.get("targetRevision", "HEAD")))
        for source in sources
    )


@dataclass(frozen=True)
class Package:
    """A packaged chart: its entry in the index, and the archive."""

    name: str
    version: str
    metadata: dict[str, Any]
    archive: bytes = field(repr=False)

    @property
    def file(self) -> str:
        """The archive's name."""
        return f"{self.name}-{self.version}.tgz"

    @property
    def digest(self) -> str:
        """SHA-256 of the archive, as in the index."""
        return hashlib.sha256(self.archive).hexdigest()


def package(folder: Path, name: str, version: str) -> Package:
    """The chart in a folder, packaged as `helm package` does, to the same bytes each time.

    Name and version replace those in its Chart.yaml, so that a stand-in need not follow the tree's versions.
    """
    chart = folder / "Chart.yaml"
    metadata = yaml.safe_load(chart.read_text()) if chart.exists() else {}
    metadata = {"apiVersion": "v2", **metadata, "name": name, "version": version}
    metadata.setdefault("appVersion", version.removeprefix("v"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["Chart.yaml"] = yaml.safe_dump(metadata, sort_keys=True).encode()
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(files):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(files[path]), 0o644
            tar.addfile(entry, io.BytesIO(files[path]))
    return Package(name, version, metadata, archive.getvalue())


def index(packages: list[Package], url: str) -> str:
    """The index.yaml of a repository at `url` with these packages."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for chart in packages:
        entry = {**chart.metadata, "digest": chart.digest, "urls": [f"{url}/{chart.file}"], "created": CREATED}
        entries.setdefault(chart.name, []).append(entry)
    return yaml.safe_dump({"apiVersion": "v1", "entries": entries, "generated": CREATED})


class ChartServer(HttpServer):
    """Serves the chart repositories of a platform tree: `/charts/helm.cilium.io/index.yaml` and archives.

    Each request reads the tree again, so a version that is pinned while the lab runs is served at once; a version that
    was served once stays.

    Args:
        trees: the folders of the Applications (cluster-gitops, site).
        clock: the lab's clock.
        standins: the folder of the stand-in charts: <host and path>/<chart>, or <host>/<chart>.
        real: returns the real chart, or None for the stand-in.
    """

    def __init__(
        self,
        *trees: Path,
        clock: Clock,
        standins: Path = STANDINS,
        real: Callable[[Pin], Package | None] = lambda _: None,
    ) -> None:
        app = web.Application()
        app.router.add_get("/charts/{repository:.+}/{file}", self._handle)
        super().__init__(app, clock)
        self._trees, self._standins, self._real = trees, standins, real
        self._packages: dict[Pin, Package] = {}
        self._extra: list[Pin] = []

    def url(self, repository: str) -> str:
        """The URL of the lab's copy of a chart repository, once the server listens."""
        return f"http://127.0.0.1:{self.port}/charts/{repository_path(repository)}"

    def mirrors(self) -> dict[str, str]:
        """Every chart repository that the tree names, with the URL of the lab's copy (`platform.gitops.mirrors`)."""
        return {pin.repository: self.url(pin.repository) for pin in charts(*self._trees)}

    def pin(self, repository: str, chart: str, version: str) -> None:
        """Serve one more version that is not in the tree, to test an upgrade."""
        self._extra.append(Pin(repository, chart, version))

    def packages(self, path: str) -> list[Package]:
        """The charts of the repository with this path; [] if the tree does not name it."""
        for pin in [*charts(*self._trees), *self._extra]:
            if pin not in self._packages:
                self._packages[pin] = self._real(pin) or package(self._folder(pin), pin.chart, pin.version)
        return [chart for pin, chart in sorted(self._packages.items(), reverse=True) if pin.path == path]

    def _folder(self, pin: Pin) -> Path:
        host = pin.path.partition("/")[0]
        candidates = [self._standins / pin.path / pin.chart, self._standins / host / pin.chart]
        return next((folder for folder in candidates if folder.is_dir()), GENERIC)

    async def _handle(self, request: web.Request) -> web.Response:
        path, file = request.match_info["repository"], request.match_info["file"]
        packages = self.packages(path)
        if packages and file == "index.yaml":
            url = f"{request.scheme}://{request.host}/charts/{path}"
            return web.Response(text=index(packages, url), content_type="text/yaml")
        for chart in packages:
            if chart.file == file:
                return web.Response(body=chart.archive, content_type="application/gzip")
        raise web.HTTPNotFound
