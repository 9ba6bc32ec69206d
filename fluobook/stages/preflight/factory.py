"""The Image Factory: it has the Talos version and the extensions, and calls our schematic what we call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.machine import schematic
from fluobook.stages.core.check import Check, CheckGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.context import RunContext


def _checks(context: RunContext) -> Iterator[Check]:
    version = context.platform.versions.talos.removeprefix("v")
    versions = context.factory.versions()
    has = f"v{version}" in versions
    near = ", ".join(v for v in versions if v.startswith(f"v{version.rpartition('.')[0]}.")) or "none of that minor"
    yield Check(
        f"the Image Factory has Talos {version}",
        has,
        schematic.FACTORY if has else f"it has {near}",
        "set versions.talos in the params, or the pin in params/versions.yaml, to one that it has",
    )
    if has:
        yield from _schematic(context, version)


def _schematic(context: RunContext, version: str) -> Iterator[Check]:
    ours = schematic.parse((context.root / "talos" / "schematic.yaml").read_text())
    wanted = schematic.extensions(ours)
    absent = sorted(set(wanted) - set(context.factory.extensions(version)))
    yield Check(
        "it has the extensions of talos/schematic.yaml for it",
        not absent,
        f"not {', '.join(absent)}" if absent else ", ".join(wanted) or "none asked for",
        "correct their names in talos/schematic.yaml, or choose a Talos version that has them",
    )
    name = schematic.schematic_id(ours)
    known = context.factory.known(name)
    yield Check(
        "its id of the schematic is the one computed here",
        # Nobody may have told it the schematic yet; stage 1 does, and compares the ids again.
        known is None or schematic.parse(known) == schematic.parse(schematic.canonical(ours)),
        name[:16],
        "write the values of talos/schematic.yaml plainly: their canonical form is not known here",
    )


GROUPS = (CheckGroup("the Image Factory answers", _checks),)
