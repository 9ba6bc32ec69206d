"""Stage 0, preflight: checks everything that the later stages depend on, before any of them changes anything.

It only reads. Its plan has no actions and shows the warnings about the params. `verify` runs all checks in parallel,
and each to its end even if another one fails, so that one run names everything that has to be fixed.
"""

from __future__ import annotations

from fluobook.params import warnings
from fluobook.stages.core.check import run_groups
from fluobook.stages.core.stage import read_only_stage
from fluobook.stages.preflight import checks, proxmox

STAGE = read_only_stage(
    0,
    "preflight",
    "Check everything before anything is changed",
    lambda context: run_groups(context, (*checks.LOCAL, *proxmox.GROUPS, *checks.SOURCES)),
    uses=("proxmox", "talos", "image factory"),
    notes=lambda platform: tuple(f"warning: {sentence}" for sentence in warnings(platform)),
)
