"""Stage 7, install-argocd: Argo CD with KSOPS, from the Application with which it will manage itself.

The chart is rendered by helm and applied by server-side apply, as Argo CD itself does with every chart, and not by
`helm install`:

- Argo CD never creates Helm releases. A release Secret would describe the first installation for ever, and anyone who
  upgrades or uninstalls "the release" later would work against Argo CD.
- Helm has its own field manager, so a field that a later chart removes would stay in the cluster (see `core.ssa`).
- An interrupted install leaves Helm's release locked. Applied objects simply exist, and a second run applies the rest.

Helm's hooks for installations run as Helm runs them: by weight, each Job to its end. Once Argo CD has synced its own
Application, this stage acts only if one of its workloads is missing or not ready, because nothing else could fix that.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.install_argocd.plan import NAME, plan, verify
from fluobook.stages.install_argocd.work import observe, perform

STAGE = Stage(7, NAME, "Install Argo CD with KSOPS", observe, plan, perform, verify, uses=("kubernetes",))
