"""Versions are exact: what Argo CD deploys tomorrow is what was tried today."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Key
    from fluobook.gitops.look import Finding, Look

_EXACT = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?|[0-9a-f]{40}")


def versions_are_exact(look: Look) -> Iterator[Finding]:
    """Charts and others' repositories have an exact version; no image floats; chart sources are https."""
    for one in look.tree.applications:
        source = look.at(one.document, "spec", "source", "targetRevision")
        if not look.tree.is_ours(one) and not _EXACT.fullmatch(one.version):
            yield source.finding("pin", f"{one.name}: {one.version} is no exact version", "write all three numbers")
        if not one.repo.startswith("https://"):
            yield look.at(one.document, "spec", "source", "repoURL").finding(
                "pin", f"{one.name}: its source is not https", "use an https chart repository or git URL"
            )
        for index, image in enumerate(one.kustomize.get("images") or ()):
            if _floats(image):
                yield look.at(one.document, "spec", "source", "kustomize", "images", index).finding(
                    "pin", f"{one.name}: image {image} floats", "give it a tag that is a version"
                )
    for document in look.documents:
        for path, image in _images(document.data):
            if _floats(image):
                yield look.at(document, *path).finding(
                    "pin", f"image {image} floats", "give it a tag that is a version"
                )


def _images(data: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], str]]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("image", "imageName") and isinstance(value, str):
                yield (*path, key), value
            yield from _images(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _images(value, (*path, index))


def _floats(image: str) -> bool:
    """Whether an image has no tag, or one that moves: `latest`, or a major version alone."""
    if "@sha256:" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return not re.search(r"\d+\.\d+", tag)
