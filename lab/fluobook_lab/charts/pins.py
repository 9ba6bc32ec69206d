"""Which charts the platform tree asks for, read from its Applications: the versions stand there and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from fluobook.kubernetes import manifests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, order=True)
class Pin:
    """One chart, or one git repository, in one version, as an Application names it."""

    repository: str
    chart: str
    version: str

    @property
    def place(self) -> str:
        """Host and path of the repository: where the lab keeps what stands in for it."""
        return place(self.repository)


def place(url: str) -> str:
    """Host and path of a URL: "helm.cilium.io", "github.com/rabbitmq/cluster-operator"; no slash or .git at the end."""
    parts = urlsplit(url if "://" in url else f"oci://{url}")
    return f"{parts.netloc}{parts.path}".rstrip("/").removesuffix(".git")


def charts(tree: Path) -> list[Pin]:
    """The charts that the Applications below a folder name."""
    return sorted({pin for pin in _pins(tree) if pin.chart})


def repositories(tree: Path) -> list[Pin]:
    """The git repositories that the Applications below a folder name, with the revision they ask for."""
    return sorted({pin for pin in _pins(tree) if not pin.chart})


def _pins(tree: Path) -> Iterator[Pin]:
    for file in sorted(tree.rglob("*.yaml")):
        found = file.stat()
        yield from _pins_of(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4096)
def _pins_of(file: Path, _changed: int, _size: int) -> tuple[Pin, ...]:
    """The pins of one file, read anew only when it changed: a tree is asked for at every request."""
    try:
        documents = manifests.load(file.read_text())
    except (yaml.YAMLError, ValueError):  # somebody is writing it, or it is no manifest
        return ()
    applications = [document.get("spec") or {} for document in documents if document.get("kind") == "Application"]
    return tuple(_pin(source) for spec in applications for source in _sources(spec))


def _pin(source: dict[str, Any]) -> Pin:
    return Pin(source.get("repoURL", ""), source.get("chart", ""), str(source.get("targetRevision", "HEAD")))


def _sources(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [source for source in [spec.get("source"), *(spec.get("sources") or ())] if source]
