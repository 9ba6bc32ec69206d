"""Runbook 22, upgrade-kubernetes: brings the control plane and every kubelet to the Kubernetes version of the params.

Images are fetched everywhere first. API servers change one after the other, then controller managers, schedulers, and
kubelets, each of these on a drained node. In a node's configuration only images change: nothing else comes along.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.upgrade_kubernetes.plan import NAME, plan
from fluobook.stages.upgrade_kubernetes.work import observe, perform, verify

STAGE = Stage(
    22,
    NAME,
    "Upgrade Kubernetes, part by part",
    observe,
    plan,
    perform,
    verify,
    uses=("talos", "kubernetes"),
    widths={"pull": 16, "node": 1},
)
