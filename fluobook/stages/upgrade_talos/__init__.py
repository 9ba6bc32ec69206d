"""Runbook 21, upgrade-talos: brings every node to the Talos version of the params, one after the other.

Images are fetched everywhere first. A node is cordoned, drained, installed, restarted, checked and uncordoned, between
gates that ask whether the rest can bear its absence. Talos' own call checks nothing about etcd, so the gates do.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.upgrade_talos.plan import plan
from fluobook.stages.upgrade_talos.state import observe
from fluobook.stages.upgrade_talos.work import perform, verify

STAGE = Stage(
    21,
    "upgrade-talos",
    "Upgrade Talos, node by node",
    observe,
    plan,
    perform,
    verify,
    uses=("proxmox", "talos", "kubernetes", "image factory"),
    widths={"pull": 16, "node": 1},
)
