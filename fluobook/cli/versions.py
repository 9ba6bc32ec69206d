"""`fluobook versions`: the pinned charts against the newest that their repositories list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fluobook.cli.options import Phase, Settings, Target, chosen, root

if TYPE_CHECKING:
    import typer

    from fluobook.gitops.charts import Newer
    from fluobook.params import Params, Platform


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(versions)


def versions(phase: Phase = "phase1", target: Target = "lab", settings: Settings = []) -> int:  # noqa: B006
    """Compare each chart's version with the newest stable one. Example: fluobook versions phase1 --target live."""
    from fluobook import gitops  # noqa: PLC0415
    from fluobook.clients import helm  # noqa: PLC0415
    from fluobook.display.tree import versions_table  # noqa: PLC0415
    from fluobook.gitops.charts import newer  # noqa: PLC0415

    platform = _platform(chosen(phase, settings), target)
    tree = gitops.for_phase(platform, gitops.read(root(), platform.gitops.path))
    found = newer(tree, lambda repo, chart: helm.versions(repo, chart, ca_file=platform.ca_file(repo)))
    print(versions_table(found).text())  # noqa: T201
    return _unanswered(found)


def _platform(params: Params, target: str) -> Platform:
    """The platform whose mirrors are asked: a rehearsal's are the lab's chart server."""
    from fluobook import lab  # noqa: PLC0415
    from fluobook.params import overlay  # noqa: PLC0415

    if target == "live":
        return params.platform
    return overlay(params.platform, lab.for_phase(params, root=root()).overlay)


def _unanswered(found: list[Newer]) -> int:
    """Report what no repository answered for; 1 if there is any: whether something is newer is unknown then."""
    silent = [one for one in found if one.problem]
    for one in silent:
        print(f"{one.chart}: {one.problem}", file=sys.stderr)  # noqa: T201
    return 1 if silent else 0
