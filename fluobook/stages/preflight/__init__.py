"""Stage 0, preflight: everything that the next stages stand on, looked at before any of them acts.

It only reads: its plan is always empty, and `verify` is where the looks are taken, side by side. Every look is taken to
its end even when another one failed, so that one run tells everything that has to be put right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.core.check import CheckGroup, run_groups
from fluobook.stages.core.stage import read_only_stage
from fluobook.stages.preflight import factory, keys, machine, proxmox, sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.context import RunContext
    from fluobook.stages.core.check import Check

GROUPS: tuple[CheckGroup, ...] = (*machine.GROUPS, *keys.GROUPS, *proxmox.GROUPS, *factory.GROUPS, *sources.GROUPS)
"""All looks, in the order in which their checks are shown."""


def verify(context: RunContext) -> Sequence[Check]:
    """Take every look."""
    return run_groups(context, GROUPS)


STAGE = read_only_stage(
    0, "preflight", "Check everything before acting", verify, uses=("proxmox", "talos", "image factory")
)
