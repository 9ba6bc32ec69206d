"""Runbook 25, restore: brings etcd back from a snapshot when all control planes or the quorum are lost for good.

Everything that was written since the snapshot is lost, so a cluster that still has a quorum is refused. Control planes
with data are wiped of it, one receives the snapshot, and the others join. Talos restores without raising revisions: who
watches the API may miss what follows, so every worker restarts.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.restore.plan import observe, plan
from fluobook.stages.restore.work import perform, verify

STAGE = Stage(
    25,
    "restore",
    "Restore etcd from a snapshot",
    observe,
    plan,
    perform,
    verify,
    uses=("talos", "kubernetes", "bucket"),
    widths={"worker": 1},
)
