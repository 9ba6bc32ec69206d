"""This machine: the programs that fluobook calls; and, for DHCP, the reservations written for whoever needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.clients.tools import WANTED, inventory
from fluobook.journal.folder import write_text
from fluobook.params import DHCP_SERVERS, reservations
from fluobook.stages.core.check import Check, CheckGroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.context import RunContext


def _tools(context: RunContext) -> Iterator[Check]:
    found = inventory()
    context.journal.write("evidence", stage="preflight", tools={t.name: f"{t.version} ({t.source})" for t in found})
    missing = [tool.source for tool in found if not tool.version]
    yield Check(
        "the programs are there, in versions that fit",
        not missing,
        "; ".join(missing) or ", ".join(f"{name} {WANTED[name].says()}" for name in sorted(WANTED)),
        "`fluobook tools` lists what was found; install requirements.lock again, or put the program on the PATH",
    )


def _dhcp(context: RunContext) -> Iterator[Check]:
    if context.platform.network.addressing != "dhcp":
        return
    folder = _folder(context) / "dhcp"
    for server in DHCP_SERVERS:
        write_text(folder / f"{server}.conf", reservations(context.platform, server))
    yield Check("the DHCP reservations are written", passed=True, result=f"{', '.join(DHCP_SERVERS)} in {folder}")


def _folder(context: RunContext) -> Path:
    """The run folder; without a run, the cluster's own."""
    return context.journal.path.parent if context.journal.path else context.home


GROUPS = (CheckGroup("the programs can be looked for", _tools), CheckGroup("the DHCP reservations are written", _dhcp))
