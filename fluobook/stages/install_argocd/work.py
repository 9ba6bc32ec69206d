"""Observes Argo CD and performs the actions of stage 7. Applying is idempotent and can be interrupted at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import DeadlineExceeded, TaskFailed
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import readiness, ssa
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.install_argocd.chart import APPLICATION, chart_of, render
from fluobook.stages.install_argocd.plan import API, Observation
from fluobook.stages.sops_age_key import NAME as KEY_STAGE
from fluobook.stages.sops_age_key import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action

    Obj = dict[str, Any]

WIDTH = 8
"""How many objects are applied at once."""
APPS = "apps/v1"


def observe(context: RunContext) -> Observation:
    """Whether Argo CD manages itself; if it does not, what applying the chart would change."""
    chart = chart_of(context.platform, context.root)
    kube = api(context)
    missing = kube if isinstance(kube, Missing) else _missing(kube)
    if missing or isinstance(kube, Missing):
        return Observation(chart, missing)
    own = _own_workloads(kube)
    if own and not any(own.values()):
        return Observation(chart, manages_itself=True, workloads=own)
    compared = ssa.compare_all(kube, render(kube, context.platform, chart).objects)
    workloads = {
        entry.title: readiness.why_not(entry.live) if entry.live else "does not exist"
        for entry in compared
        if entry.wanted["kind"] in readiness.WORKLOADS
    }
    return Observation(chart, compared=compared, workloads=workloads)


def _missing(kube: Kube) -> Missing | None:
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

    def why_not(resource: Mapping[str, Any]) -> str:
        api_version = f"{resource['group']}/{resource['version']}"
        live = kube.find(api_version, resource["kind"], resource["name"], resource["namespace"])
        return readiness.why_not(live) if live else "does not exist"

    workloads = [r for r in status.get("resources") or () if r["kind"] in readiness.WORKLOADS]
    return {f"{workload['kind']} {workload['name']}": why_not(workload) for workload in workloads}


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Install the chart, or wait for one workload."""
    if action.verb == "install":
        return _install(context, report)
    report.release_slot()
    return _await(context, action.data["kind"], action.data["name"], report)


def _install(context: RunContext, report: Reporter) -> Mapping[str, Any]:
    """Hooks before, then CRDs, then what workloads depend on, then workloads, then hooks after: Helm's order."""
    kube = context.kube()
    report("renders the chart")
    rendered = render(kube, context.platform, chart_of(context.platform, context.root))
    _run_hooks(context, rendered.before, report)
    applied = 0
    for group in _in_order(rendered.objects):
        differing = [entry.wanted for entry in ssa.compare_all(kube, group) if entry.differs]
        applied += len(in_parallel(lambda obj: ssa.apply(kube, obj), differing, width=WIDTH))
        report(f"{applied} objects applied")
    _run_hooks(context, rendered.after, report)
    return {"objects": len(rendered.objects), "applied": applied}


def _in_order(objects: Iterable[Obj]) -> list[list[Obj]]:
    groups: list[list[Obj]] = [[], [], []]
    for obj in objects:
        is_workload = obj["kind"] in readiness.WORKLOADS
        groups[0 if obj["kind"] == "CustomResourceDefinition" else 2 if is_workload else 1].append(obj)
    return groups


def _run_hooks(context: RunContext, hooks: Iterable[Obj], report: Reporter) -> None:
    """Run hooks one after the other; a Job is created again and waited for."""
    for hook in hooks:
        report(f"hook {ssa.title(hook)}")
        if hook["kind"] == "Job":
            _run_job(context, context.kube(), hook)
        else:
            ssa.apply(context.kube(), hook)


def _run_job(context: RunContext, kube: Kube, job: Obj) -> None:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]

    def finished() -> Obj | None:
        live = kube.get(job["apiVersion"], "Job", name, namespace)
        return live if readiness.failed(live) or not readiness.why_not(live) else None

    kube.delete(job["apiVersion"], "Job", name, namespace)
    context.wait_until("argocd", f"hook Job {name} to be created", lambda: kube.create(job))
    live = context.wait_until("argocd", f"hook Job {name} to finish", finished)
    if readiness.failed(live):
        raise TaskFailed(
            f"hook Job {namespace}/{name} failed: {readiness.why_not(live)}",
            system="kubernetes",
            remedy=f"kubectl -n {namespace} logs job/{name}, then run the stage again",
        )


def _await(context: RunContext, kind: str, name: str, report: Reporter) -> Mapping[str, Any]:
    kube = context.kube()

    def ready() -> Obj | None:
        live = kube.get(APPS, kind, name, NAMESPACE)
        why = readiness.why_not(live)
        report(why)
        return None if why else live

    try:
        live = context.wait_until("argocd", f"{kind} {name} to be ready", ready, interval=0.1)
    except DeadlineExceeded as error:
        error.cause = _why_not_ready(kube, kind, name) or error.cause
        error.remedy = f"kubectl -n {NAMESPACE} describe {kind.lower()} {name}"
        raise
    return {"resourceVersion": live["metadata"]["resourceVersion"]}


def _why_not_ready(kube: Kube, kind: str, name: str) -> str:
    """Why a workload is not ready, with the message of the first pod that waits."""
    live = kube.find(APPS, kind, name, NAMESPACE)
    if live is None:
        return "it does not exist"
    return "; ".join(filter(None, (readiness.why_not(live), readiness.why_its_pods_wait(kube, live))))
