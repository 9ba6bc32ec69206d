"""Stage 9, observe: nodes, certificate requests, Applications and flows as they are now; nothing is ever changed.

While a person watches in JupyterLab, a table follows the cluster until it is closed. Otherwise it is read and shown
once, without anything that depends on time, chance or ports.
"""

from __future__ import annotations

from fluobook.stages.core.stage import read_only_stage
from fluobook.stages.observe.watch import (
    traffic,
    verify,
    watch_applications,
    watch_csrs,
    watch_flows,
    watch_nodes,
    waves,
)

STAGE = read_only_stage(9, "observe", "Watch the platform", verify, uses=("kubernetes",))

__all__ = ["STAGE", "traffic", "watch_applications", "watch_csrs", "watch_flows", "watch_nodes", "waves"]
