"""Runbook 26, certificates: how long everything lasts, and renewal of what nothing else renews.

The client certificates in kubeconfig and talosconfig are renewed 30 days before they end, from the secrets bundle.
What `rotate` in the params asks for is rotated: an authority in three phases, each of which every node passes and
proves before the next begins, so that at any moment any two nodes and the operator trust each other; the password of
admin in Argo CD; the age key; API tokens of Proxmox VE, whose successors the params name.
"""

from fluobook.stages.certificates.plan import observe, perform, plan, verify
from fluobook.stages.core.stage import Stage

STAGE = Stage(
    26,
    "certificates",
    "Renew and rotate certificates and keys",
    observe,
    plan,
    perform,
    verify,
    uses=("proxmox", "talos", "kubernetes"),
    widths={"node": 1},
)
