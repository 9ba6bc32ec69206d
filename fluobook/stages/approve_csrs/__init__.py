"""Stage 4, approve-csrs: kubelets' serving certificates, each request held against what the params say of its node.

The signer in Kubernetes looks at neither names nor addresses in a request, nor at who filed it; only the approver
protects. What does not fit is named and left alone: it is never approved, and never denied either, since a denial could
hit what another controller means to approve.
"""

from fluobook.stages.approve_csrs.judge import Request, judge
from fluobook.stages.approve_csrs.stage import observe, perform, plan, verify
from fluobook.stages.core.stage import Stage

STAGE = Stage(
    4,
    "approve-csrs",
    "Approve the kubelets' serving certificates",
    observe,
    plan,
    perform,
    verify,
    uses=("kubernetes",),
)

__all__ = ["STAGE", "Request", "judge"]
