"""What of Argo CD is there: nothing yet, parts of it, or all of it and in its own hands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import readiness, ssa
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.install_argocd.chart import APPLICATION, chart_of, render
from fluobook.stages.sops_age_key import NAME as KEY_STAGE
from fluobook.stages.sops_age_key import SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.stages.core.ssa import Compared
    from fluobook.stages.install_argocd.chart import Chart

API = "argoproj.io/v1alpha1"


@dataclass(frozen=True)
class Observation:
    """What there is.

    Args:
        chart: what Argo CD is installed from.
        missing: the earlier stage without which it cannot be installed.
        keeps_itself: whether Argo CD has synced its own Application, and runs.
        compared: each of the chart's objects with what is live; not looked at where Argo CD keeps itself.
        workloads: each workload of Argo CD, and why it is not ready ("" if it is).
    """

    chart: Chart
    missing: Missing | None = None
    keeps_itself: bool = False
    compared: Sequence[Compared] = field(default_factory=tuple)
    workloads: Mapping[str, str] = field(default_factory=dict)


def observe(context: RunContext) -> Observation:
    """Ask whether Argo CD keeps itself; if it does not, what applying the chart would change."""
    chart = chart_of(context)
    kube = api(context)
    missing = kube if isinstance(kube, Missing) else _before(kube)
    if missing or isinstance(kube, Missing):
        return Observation(chart, missing)
    own = _own_workloads(kube)
    if own and not any(own.values()):
        return Observation(chart, keeps_itself=True, workloads=own)
    compared = ssa.compare_all(kube, render(context, kube, chart).objects)
    workloads = {
        one.title: readiness.why_not(one.live) if one.live else "not there"
        for one in compared
        if one.wanted["kind"] in readiness.WORKLOADS
    }
    return Observation(chart, compared=compared, workloads=workloads)


def _before(kube: Kube) -> Missing | None:
    """The repo-server's pod mounts the key, and does not start without it."""
    if kube.find("v1", "Namespace", NAMESPACE) is None:
        return Missing("privileged-namespaces", f"there is no namespace {NAMESPACE} yet")
    if kube.find("v1", "Secret", SECRET, NAMESPACE) is None:
        return Missing(KEY_STAGE, f"there is no Secret {NAMESPACE}/{SECRET} yet")
    return None


def _own_workloads(kube: Kube) -> dict[str, str]:
    """The workloads that Argo CD's own Application lists, once it was synced; else nothing."""
    status = (kube.find(API, "Application", APPLICATION, NAMESPACE) or {}).get("status") or {}
    if not status.get("history"):
        return {}
    listed = [one for one in status.get("resources") or () if one["kind"] in readiness.WORKLOADS]
    return {f"{one['kind']} {one['name']}": _why_not(kube, one) for one in listed}


def _why_not(kube: Kube, listed: Mapping[str, Any]) -> str:
    live = kube.find(f"{listed['group']}/{listed['version']}", listed["kind"], listed["name"], listed["namespace"])
    return readiness.why_not(live) if live else "not there"
