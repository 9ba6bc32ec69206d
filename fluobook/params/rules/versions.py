"""Whether the versions that were chosen go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform
    from fluobook.params.versions import Matrix


def versions_go_together(platform: Platform, matrix: Matrix) -> Iterator[Problem]:
    """Talos runs this Kubernetes."""
    versions = platform.versions
    if refusal := matrix.refusal("talos", versions.talos, versions.kubernetes):
        named = "talos" if "has no row" in refusal else "kubernetes"
        yield Problem(
            f"platform.versions.{named}",
            getattr(versions, named),
            refusal,
            "null takes the version that this release was tried with",
        )
