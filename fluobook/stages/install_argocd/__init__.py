"""Stage 7, install-argocd: Argo CD with KSOPS, from the very Application with which it will manage itself.

The chart is rendered by helm and applied by the server, as Argo CD itself does with every chart, and not by
`helm install`:

- Argo CD never makes Helm releases. A release Secret would report of the first installation for ever, and whoever
  upgrades or uninstalls "the release" later would work against Argo CD.
- Helm keeps its own field manager beside Argo CD's, so what a later chart takes out would stay (see `core.ssa`).
- An install that was killed leaves Helm's release locked. Objects that were applied are simply there, and a second run
  applies what is missing.

Helm's hooks that belong to an installation are run as Helm would: by weight, each Job to its end. Once Argo CD has
synced its own Application it is on its own: this stage then acts only if a workload of it is missing or not ready, for
then nothing else could mend it.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.install_argocd.observe import observe
from fluobook.stages.install_argocd.perform import perform
from fluobook.stages.install_argocd.plan import plan
from fluobook.stages.install_argocd.verify import verify

STAGE = Stage(7, "install-argocd", "Install Argo CD with KSOPS", observe, plan, perform, verify, uses=("kubernetes",))
