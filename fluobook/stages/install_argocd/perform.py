"""Does one action of stage 7; applying is idempotent, so it may be broken off at any moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fluobook.errors import DeadlineExceeded, TaskFailed
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import readiness, ssa
from fluobook.stages.install_argocd.chart import chart_of, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action

    Obj = dict[str, Any]

WIDTH = 8
APPS = "apps/v1"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Do one action."""
    if action.verb == "install":
        return _install(context, report)
    report.release_slot()
    return _await(context, action.data["kind"], action.data["name"], report)


def _install(context: RunContext, report: Reporter) -> Mapping[str, Any]:
    """Hooks before, then kinds, then what workloads stand on, then workloads, then hooks after: Helm's order."""
    kube = context.kube()
    report("renders the chart")
    rendered = render(context, kube, chart_of(context))
    _hooks(context, rendered.before, report)
    applied = 0
    for group in _groups(rendered.objects):
        applied += _apply(kube, group)
        report(f"{applied} objects applied")
    _hooks(context, rendered.after, report)
    return {"objects": len(rendered.objects), "applied": applied}


def _groups(objects: Iterable[Obj]) -> list[list[Obj]]:
    groups: list[list[Obj]] = [[], [], []]
    for obj in objects:
        late = 2 if obj["kind"] in readiness.WORKLOADS else 1
        groups[0 if obj["kind"] == "CustomResourceDefinition" else late].append(obj)
    return groups


def _apply(kube: Kube, objects: list[Obj]) -> int:
    """Apply what is missing or differs, side by side; returns how many that were."""
    differing = [one.wanted for one in ssa.compare_all(kube, objects) if one.differs]
    with ThreadPoolExecutor(WIDTH) as pool:
        return len(list(pool.map(lambda obj: ssa.apply(kube, obj), differing)))


def _hooks(context: RunContext, hooks: Iterable[Obj], report: Reporter) -> None:
    """Run hooks one after the other; a Job is made anew and waited for."""
    kube = context.kube()
    for hook in hooks:
        report(f"hook {ssa.title(hook)}")
        if hook["kind"] == "Job":
            _job(context, kube, hook)
        else:
            ssa.apply(kube, hook)


def _job(context: RunContext, kube: Kube, job: Obj) -> None:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    kube.delete(job["apiVersion"], "Job", name, namespace)
    context.wait_until("argocd", f"hook Job {name} begins", lambda: kube.create(job))

    def done() -> bool | None:
        live = kube.get(job["apiVersion"], "Job", name, namespace)
        return True if readiness.failed(live) or not readiness.why_not(live) else None

    context.wait_until("argocd", f"hook Job {name} is done", done)
    live = kube.get(job["apiVersion"], "Job", name, namespace)
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
        live = context.wait_until("argocd", f"{kind} {name} is ready", ready, interval=0.1)
    except DeadlineExceeded as error:
        error.cause = _cause(kube, kind, name) or error.cause
        error.remedy = f"kubectl -n {NAMESPACE} describe {kind.lower()} {name}"
        raise
    return {"resourceVersion": live["metadata"]["resourceVersion"]}


def _cause(kube: Kube, kind: str, name: str) -> str:
    """Why it is not ready, in the words of the first pod that waits."""
    live = kube.find(APPS, kind, name, NAMESPACE)
    if live is None:
        return "it is not there"
    return "; ".join(filter(None, (readiness.why_not(live), readiness.why_its_pods_wait(kube, live))))
