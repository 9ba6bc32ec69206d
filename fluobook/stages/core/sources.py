"""How chart repositories and git hosts are trusted, and charts rendered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fluobook.clients import helm

if TYPE_CHECKING:
    from fluobook.gitops import ChartSource
    from fluobook.params import Platform

_PORTS = {"https": 443, "http": 80, "ssh": 22}


def ca_file(platform: Platform, url: str) -> Path | None:
    """The CA file that params name for the host of a URL (`trust`); None for the system's CAs."""
    parts = urlsplit(url)
    file = platform.trusted_ca(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 22))
    return Path(file).expanduser() if file else None


def rendered(platform: Platform, source: ChartSource) -> list[dict[str, Any]]:
    """The objects of a chart, for the platform's Kubernetes.

    Raises:
        OutsideError: the chart repository does not answer, or the chart refuses its values.
    """
    return helm.template(
        source.chart,
        repo=source.repo,
        version=source.version,
        release=source.release,
        namespace=source.namespace,
        values=source.values,
        kube_version=platform.versions.kubernetes,
        ca_file=ca_file(platform, source.repo),
    )
