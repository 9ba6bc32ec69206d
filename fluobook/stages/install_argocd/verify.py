"""Proves stage 7: Argo CD runs, and has what the platform's waves and secrets stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import NotFound
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.install_argocd.observe import API
from fluobook.stages.sops_age_key import SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.stages.install_argocd.observe import Observation

WAVES = "resource.customizations.health.argoproj.io_Application"
BUILD = "kustomize.buildOptions"
KSOPS = ("--enable-alpha-plugins", "--enable-exec")


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 7."""
    again = "run stage install-argocd again"
    total, waiting = len(seen.workloads), {title: why for title, why in seen.workloads.items() if why}
    differing = [one.title for one in seen.compared if one.differs]
    told = "; ".join(f"{title}: {why}" for title, why in waiting.items())
    ready = f"{total - len(waiting)} of {total}" + (f"; {told}" if told else "")
    kube = api(context)
    return (
        Check("every workload of Argo CD is ready", bool(seen.workloads) and not waiting, ready, again),
        Check(
            "Argo CD is what its Application asks for",
            not seen.missing and not differing,
            ", ".join(differing) or seen.chart.title,
            again,
        ),
        *(() if isinstance(kube, Missing) else _settings(kube)),
    )


def _settings(kube: Kube) -> Sequence[Check]:
    data = (kube.find("v1", "ConfigMap", "argocd-cm", NAMESPACE) or {}).get("data") or {}
    options = data.get(BUILD, "").split()
    mounts = _mounted_secrets(kube)
    kinds = [kind for kind in ("Application", "AppProject") if _served(kube, kind)]
    tree = "correct cluster-gitops/infrastructure/argocd/application.yaml"
    return (
        Check("Applications and AppProjects are served", len(kinds) == 2, ", ".join(kinds) or "neither", tree),  # noqa: PLR2004
        Check(
            "the repo-server decrypts with KSOPS",
            set(KSOPS) <= set(options) and SECRET in mounts,
            f"{BUILD} {' '.join(options) or 'not set'}; mounts {', '.join(mounts) or 'no Secret'}",
            tree,
        ),
        Check("waves wait for health", WAVES in data, WAVES if WAVES in data else f"no {WAVES} in argocd-cm", tree),
    )


def _served(kube: Kube, kind: str) -> bool:
    try:
        kube.transport.kind(API, kind)
    except NotFound:
        return False
    return True


def _mounted_secrets(kube: Kube) -> list[str]:
    """The Secrets that the repo-server's own volumes name."""
    found = kube.list("apps/v1", "Deployment", NAMESPACE)
    pods: list[dict[str, Any]] = [
        one["spec"]["template"]["spec"] for one in found if one["metadata"]["name"].endswith("repo-server")
    ]
    volumes = [volume for pod in pods for volume in pod.get("volumes") or ()]
    return sorted(
        {volume["secret"]["secretName"] for volume in volumes if (volume.get("secret") or {}).get("secretName")}
    )
