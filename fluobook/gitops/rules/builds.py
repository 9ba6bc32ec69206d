"""The real kustomize builds every folder, and KSOPS gives out as many documents as it lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fluobook.errors import ToolFailed
from fluobook.gitops import build, documents, kustomization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.build import Builder
    from fluobook.gitops.look import Finding, Look, Place


def kustomizations_build(look: Look) -> Iterator[Finding]:
    """Every kustomization builds; one with a KSOPS generator gives as many Secrets as the generator has files."""
    with build.builder(look.top) as builder, ThreadPoolExecutor() as pool:
        for found in pool.map(lambda folder: list(_built(look, builder, folder)), look.kustomizations):
            yield from found


def _built(look: Look, builder: Builder, folder: Path) -> Iterator[Finding]:
    try:
        made = builder.build(folder)
    except ToolFailed as error:
        said = error.detail.strip().splitlines()[-1:] or [error.message]
        place = _spoken_of(look, folder, error.detail)
        yield place.finding("build", f"kustomize refuses it: {said[0]}", f"kubectl kustomize {folder.name} shows more")
        return
    generators = kustomization.load(folder).data.get("generators") or []
    listed = sum(len(one.data.get("files") or []) for name in generators for one in documents.read(folder / name))
    if generators and len(made) != listed:
        yield look.in_file(folder / kustomization.NAME, 1).finding(
            "build", f"its generators list {listed} files and make {len(made)} objects", "give each file one Secret"
        )


def _spoken_of(look: Look, folder: Path, said: str) -> Place:
    """The entry of the kustomization whose last part kustomize's words name; its first line where they name none."""
    file = folder / kustomization.NAME
    lines = file.read_text().splitlines()
    if "kind should be" in said:
        return look.in_file(file, next((at for at, line in enumerate(lines, 1) if line.startswith("kind:")), 1))
    entries = [(at, line.strip()[2:].strip()) for at, line in enumerate(lines, 1) if line.strip().startswith("- ")]
    named = [at for at, entry in entries if entry and entry.rpartition("/")[2] in said]
    return look.in_file(file, named[-1] if named else 1)
