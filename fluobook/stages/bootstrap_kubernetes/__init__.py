"""Stage 3, bootstrap-kubernetes: etcd once, on one node; then Cilium, nodes Ready, kubeconfig and talosconfig.

Whether etcd was bootstrapped is asked of every control plane: starting it twice would make two clusters (F29).
"""

from fluobook.stages.bootstrap_kubernetes.plan import observe, plan, verify
from fluobook.stages.bootstrap_kubernetes.work import perform
from fluobook.stages.core.stage import Stage

STAGE = Stage(
    3,
    "bootstrap-kubernetes",
    "Bootstrap etcd and Kubernetes",
    observe,
    plan,
    perform,
    verify,
    uses=("talos", "kubernetes"),
)
