"""Packages a chart folder as `helm package` does, in pure Python and to the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A packaged chart: what stands in the index, and the archive itself."""

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
        """SHA-256 of the archive, as the index has it."""
        return hashlib.sha256(self.archive).hexdigest()


def package(folder: Path, name: str, version: str) -> Package:
    """The chart in a folder, as if it were called `name` and had this version.

    Its own Chart.yaml may say anything else, so that a stand-in need not follow the tree's versions.
    """
    chart = folder / "Chart.yaml"
    metadata = yaml.safe_load(chart.read_text()) if chart.exists() else {}
    metadata = {"apiVersion": "v2", **metadata, "name": name, "version": version}
    metadata.setdefault("appVersion", version.removeprefix("v"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["Chart.yaml"] = yaml.safe_dump(metadata, sort_keys=True).encode()
    return Package(name, version, metadata, _archive({f"{name}/{path}": content for path, content in files.items()}))


def index(packages: list[Package], url: str) -> str:
    """The index.yaml of a repository at `url` that holds these packages."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for one in packages:
        entry = {**one.metadata, "digest": one.digest, "urls": [f"{url}/{one.file}"], "created": "2026-01-01T00:00:00Z"}
        entries.setdefault(one.name, []).append(entry)
    return yaml.safe_dump({"apiVersion": "v1", "entries": entries, "generated": "2026-01-01T00:00:00Z"})


def _archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(files):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(files[path]), 0o644
            tar.addfile(entry, io.BytesIO(files[path]))
    return packed.getvalue()
