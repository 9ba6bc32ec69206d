"""Foreign git repositories that the platform tree deploys from, played by small trees of our own writing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluobook.lab.charts.pins import place, repositories

if TYPE_CHECKING:
    from fluobook.lab.git_server import GitServer

STANDINS = Path(__file__).parent / "standins-git"


def seed(server: GitServer, tree: Path, *, standins: Path = STANDINS) -> list[str]:
    """Make a repository for each foreign one that the tree names, with the tag that it asks for.

    Args:
        server: the git host.
        tree: the folder of the Applications (cluster-gitops).
        standins: the folder of the stand-in trees: <host>/<owner>/<name>.

    Returns:
        the repositories' URLs as the tree has them; each is at `server.url(place(url))` once the host listens.
    """
    pins = [pin for pin in repositories(tree) if (standins / pin.place).is_dir()]
    for url in {pin.repository for pin in pins}:
        tags = [pin.version for pin in pins if pin.repository == url and pin.version not in {"main", "HEAD"}]
        server.seed(place(url), standins / place(url), tags=tags)
    return sorted({pin.repository for pin in pins})
