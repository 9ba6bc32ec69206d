"""What is observed of Argo CD, the actions that lead to all of it running, and the checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.errors import NotFound
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.sops_age_key import SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.core.ssa import Compared
    from fluobook.stages.install_argocd.chart import Chart

NAME = "install-argocd"
API = "argoproj.io/v1alpha1"
NAMED = 3
"""How many objects a reason names before it only counts."""
WAVES = "resource.customizations.health.argoproj.io_Application"
BUILD = "kustomize.buildOptions"
KSOPS = ("--enable-alpha-plugins", "--enable-exec")


@dataclass(frozen=True)
class Observation:
    """What exists.

    Args:
        chart: Argo CD is installed from it.
        missing: the earlier stage that has to run first.
        manages_itself: whether Argo CD has synced its own Application, and runs.
        compared: each of the chart's objects with the live one; empty if Argo CD manages itself.
        workloads: each workload of Argo CD, and why it is not ready ("" if it is).
    """

    chart: Chart
    missing: Missing | None = None
    manages_itself: bool = False
    compared: Sequence[Compared] = field(default_factory=tuple)
    workloads: Mapping[str, str] = field(default_factory=dict)


def plan(platform: Platform, observation: Observation) -> Plan:
    """Install what is missing, and wait for what is not ready."""
    if missing := observation.missing:
        action = _install(observation.chart, "does not exist")
        return Plan(NAME, (action,), 0, platform.digest_data(), missing.stage, (missing.reason,))
    compared = observation.compared
    differing = [entry for entry in compared if entry.differs]
    installs = (_install(observation.chart, _reason(compared, differing)),) if differing else ()
    awaited = {title: why for title, why in observation.workloads.items() if why or differing}
    actions = (*installs, *(_await(title, why, needs=installs) for title, why in awaited.items()))
    kept = len(compared) - len(differing) if compared else len(observation.workloads)
    return Plan(NAME, actions, kept, platform.digest_data())


def _reason(compared: Sequence[Compared], differing: Sequence[Compared]) -> str:
    if all(entry.missing for entry in compared):
        return "does not exist"
    titles = ", ".join(entry.title for entry in differing[:NAMED]) + (", …" if len(differing) > NAMED else "")
    return f"{len(differing)} of {len(compared)} objects are missing or differ: {titles}"


def _install(chart: Chart, reason: str) -> Action:
    source = chart.source
    return Action(
        "install",
        "install",
        f"chart {chart.title}",
        f"{source.release} in namespace {source.namespace}, rendered as Argo CD will; no Helm release",
        reason,
        system="kubernetes",
        data={"chart": source.chart, "version": source.version, "content": chart.digest},
    )


def _await(title: str, why: str, *, needs: tuple[Action, ...]) -> Action:
    kind, name = title.split(" ", 1)
    return Action(
        f"await {title}",
        "await",
        title,
        "ready",
        why or "is about to change",
        tuple(action.id for action in needs),
        "kubernetes",
        {"kind": kind, "name": name},
    )


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 7: Argo CD runs, and has what the waves and the secrets of the platform need."""
    again = f"run stage {NAME} again"
    workloads = observation.workloads
    waiting = [f"{title}: {why}" for title, why in workloads.items() if why]
    ready = "; ".join([f"{len(workloads) - len(waiting)} of {len(workloads)}", *waiting])
    differing = [entry.title for entry in observation.compared if entry.differs]
    up_to_date = not observation.missing and not differing
    kube = api(context)
    return (
        Check("every workload of Argo CD is ready", bool(workloads) and not waiting, ready, again),
        Check(
            "Argo CD is up to date with its Application",
            up_to_date,
            ", ".join(differing) or observation.chart.title,
            again,
        ),
        *(() if isinstance(kube, Missing) else _settings(kube)),
    )


def _settings(kube: Kube) -> Sequence[Check]:
    data = (kube.find("v1", "ConfigMap", "argocd-cm", NAMESPACE) or {}).get("data") or {}
    options, secrets = data.get(BUILD, "").split(), _mounted_secrets(kube)
    unserved = [kind for kind in ("Application", "AppProject") if not _is_served(kube, kind)]
    served = f"missing: {', '.join(unserved)}" if unserved else "Application, AppProject"
    tree = "correct cluster-gitops/infrastructure/argocd/application.yaml"
    return (
        Check("the API serves Applications and AppProjects", not unserved, served, tree),
        Check(
            "the repo-server decrypts with KSOPS",
            set(KSOPS) <= set(options) and SECRET in secrets,
            f"{BUILD} {' '.join(options) or 'not set'}; mounts {', '.join(secrets) or 'no Secret'}",
            tree,
        ),
        Check("waves wait for health", WAVES in data, WAVES if WAVES in data else f"no {WAVES} in argocd-cm", tree),
    )


def _is_served(kube: Kube, kind: str) -> bool:
    try:
        kube.transport.kind(API, kind)
    except NotFound:
        return False
    return True


def _mounted_secrets(kube: Kube) -> list[str]:
    """The Secrets that the repo-server's own volumes name."""
    deployments = kube.list("apps/v1", "Deployment", NAMESPACE)
    pods: list[dict[str, Any]] = [
        deployment["spec"]["template"]["spec"]
        for deployment in deployments
        if deployment["metadata"]["name"].endswith("repo-server")
    ]
    secrets = [volume.get("secret") or {} for pod in pods for volume in pod.get("volumes") or ()]
    return sorted({secret["secretName"] for secret in secrets if secret.get("secretName")})
