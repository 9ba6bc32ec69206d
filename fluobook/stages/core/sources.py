"""How chart repositories and git hosts are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fluobook.params import Platform

_PORTS = {"https": 443, "http": 80, "ssh": 22}


def ca_file(platform: Platform, url: str) -> Path | None:
    """The CA file that params name for the host of a URL (`trust`); None for the system's CAs."""
    parts = urlsplit(url)
    file = platform.trusted_ca(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 22))
    return Path(file).expanduser() if file else None
