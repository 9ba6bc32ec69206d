"""Stage 7, install-argocd: Argo CD with KSOPS, from the Application with which it will manage itself.

The chart is rendered by helm and applied by server-side apply, as Argo CD itself does with every chart, and not by
`helm install`:

- Argo CD never creates Helm releases. A release Secret would describe the first installation for ever, and anyone who
  upgrades or uninstalls "the release" later would work against Argo CD.
- Helm has its own field manager, so a field that a later chart removes would stay in the cluster (see `core.ssa`).
- An interrupted install leaves Helm's release locked. Applied objects simply exist, and a second run applies the rest.

The CustomResourceDefinitions of all other charts come first, as Argo CD will apply them. Each one that appears while
Argo CD watches the cluster makes it fetch and parse the API's whole OpenAPI document, which the API server builds again
for that: with those of the platform's charts this takes minutes, and requests time out. A chart that this machine
cannot render is left to Argo CD.

Helm's hooks for installations run as Helm runs them: by weight, each Job to its end. Once Argo CD has synced its own
Application, this stage acts only if one of its workloads is missing or not ready, because nothing else could fix that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.errors import KUBECTL, DeadlineExceeded, FluobookError, NotFound, Rejected, TaskFailed
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import readiness, ssa
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage
from fluobook.stages.sops_age_key import NAME as KEY_STAGE
from fluobook.stages.sops_age_key import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.gitops import ChartSource
    from fluobook.params import Platform
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.ssa import Compared

    Obj = dict[str, Any]

NAME = "install-argocd"
API, APPS = "argoproj.io/v1alpha1", "apps/v1"
APPLICATION = "argocd"
"""The Application in the tree with which Argo CD manages itself."""
DEFINITION = "CustomResourceDefinition"
HOOK, WEIGHT = "helm.sh/hook", "helm.sh/hook-weight"
BEFORE, AFTER = "pre-install", "post-install"
WAVES = "resource.customizations.health.argoproj.io_Application"
BUILD = "kustomize.buildOptions"
KSOPS = ("--enable-alpha-plugins", "--enable-exec")
NAMED = 3
"""How many objects a reason names before it only counts."""
WIDTH, FEW = 8, 3
"""How many objects are applied at once, and how many CustomResourceDefinitions: one can take seconds of a processor."""


@dataclass(frozen=True)
class Chart:
    """Source and values of the chart.

    Args:
        source: as the phase sees it, mirrors included.
        digest: a short hash of everything except the mirrors.
    """

    source: ChartSource = field(repr=False)
    digest: str

    @property
    def title(self) -> str:
        """Chart and version: "argo-cd 10.1.1"."""
        return f"{self.source.chart} {self.source.version}"


@dataclass(frozen=True)
class Rendered:
    """The rendered chart: hooks before, the objects, hooks after, each in the order in which they are applied."""

    before: tuple[Obj, ...]
    objects: tuple[Obj, ...]
    after: tuple[Obj, ...]


def chart_of(platform: Platform, root: Path) -> Chart:
    """The chart that the tree's Application names."""
    tree = gitops.of(platform, root)
    source = gitops.chart_source(gitops.for_phase(platform, tree), APPLICATION)
    repo = tree.application(APPLICATION).repo
    content = [repo, source.chart, source.version, source.release, source.namespace, source.values]
    return Chart(source, hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12])


def render(kube: Kube, platform: Platform, chart: Chart) -> Rendered:
    """Render the chart as Argo CD will.

    Raises:
        OutsideError: the chart repository does not answer, or the chart rejects its values.
    """
    namespace = chart.source.namespace
    objects = [_with_namespace(kube, obj, namespace) for obj in gitops.render_chart(platform, chart.source)]
    return Rendered(
        hooks_of(objects, BEFORE), tuple(obj for obj in objects if not _hooks(obj)), hooks_of(objects, AFTER)
    )


def _with_namespace(kube: Kube, obj: Obj, namespace: str) -> Obj:
    """The object in the release's namespace, unless it names one, or its kind is not namespaced."""
    if obj["metadata"].get("namespace"):
        return obj
    try:
        namespaced = kube.kind(obj["apiVersion"], obj["kind"]).namespaced
    except NotFound:
        namespaced = True
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}} if namespaced else obj


def hooks_of(objects: Iterable[Obj], hook: str) -> tuple[Obj, ...]:
    """The objects of a hook in Helm's order: by weight; those of one weight as rendered."""
    chosen = [obj for obj in objects if hook in _hooks(obj)]
    return tuple(sorted(chosen, key=lambda obj: int(_annotations(obj).get(WEIGHT, "0"))))


def _hooks(obj: Mapping[str, Any]) -> list[str]:
    return [hook.strip() for hook in _annotations(obj).get(HOOK, "").split(",") if hook.strip()]


def _annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


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
        action = _install_action(observation.chart, "does not exist")
        return Plan(NAME, (action,), 0, platform.digest_data(), missing.stage, (missing.reason,))
    compared = observation.compared
    differing = [entry for entry in compared if entry.differs]
    installs = (_install_action(observation.chart, _reason(compared, differing)),) if differing else ()
    awaited = {title: why for title, why in observation.workloads.items() if why or differing}
    actions = (*installs, *(_await_action(title, why, needs=installs) for title, why in awaited.items()))
    kept = len(compared) - len(differing) if compared else len(observation.workloads)
    return Plan(NAME, actions, kept, platform.digest_data())


def _reason(compared: Sequence[Compared], differing: Sequence[Compared]) -> str:
    if all(entry.missing for entry in compared):
        return "does not exist"
    titles = ", ".join(entry.title for entry in differing[:NAMED]) + (", …" if len(differing) > NAMED else "")
    return f"{len(differing)} of {len(compared)} objects are missing or differ: {titles}"


def _install_action(chart: Chart, reason: str) -> Action:
    source = chart.source
    return Action(
        "install",
        "install",
        f"chart {chart.title}",
        f"{source.release} in namespace {source.namespace}, as Argo CD renders it; no Helm release; CRDs of all charts",
        reason,
        system="kubernetes",
        data={"chart": source.chart, "version": source.version, "content": chart.digest},
    )


def _await_action(title: str, why: str, *, needs: tuple[Action, ...]) -> Action:
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
    unserved = _unserved(kube)
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


def _unserved(kube: Kube) -> list[str]:
    """The kinds of Argo CD that the API does not serve: it takes a while after their CRDs, longer after many."""

    def is_served(kind: str) -> bool:
        try:
            kube.kind(API, kind)
        except NotFound:
            return False
        return True

    return [kind for kind in ("Application", "AppProject") if not is_served(kind)]


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
    in_parallel(lambda obj: _apply_definition(context, obj, report), _definitions(context, report), width=FEW)
    applied = 0
    for group in _in_order(rendered.objects):
        differing = [entry.wanted for entry in ssa.compare_all(kube, group) if entry.differs]
        applied += len(in_parallel(lambda obj: ssa.apply(kube, obj), differing, width=WIDTH))
        report(f"{applied} objects applied")
    served = "the API to serve Argo CD's kinds"
    context.wait_until("argocd", served, lambda: not _unserved(kube) or None, interval=0.1)
    _run_hooks(context, rendered.after, report)
    return {"objects": len(rendered.objects), "applied": applied}


def _apply_definition(context: RunContext, obj: Obj, report: Reporter) -> None:
    """Apply one, again if a busy API server does not answer in time. One that it refuses keeps Argo CD from nothing."""
    what = f"{ssa.title(obj)} to be applied"
    try:
        context.wait_until("argocd", what, lambda: ssa.apply(context.kube(), obj), final=(Rejected,))
    except Rejected as error:
        report(f"leaves {ssa.title(obj)} to Argo CD: {error.message}")


def _definitions(context: RunContext, report: Reporter) -> list[Obj]:
    """The CustomResourceDefinitions of the phase's other charts that do not exist yet."""
    kube, platform = context.kube(), context.platform
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))

    def rendered(name: str) -> list[Obj]:
        try:
            return gitops.render_chart(platform, gitops.chart_source(tree, name))
        except FluobookError as error:
            report(f"leaves the CustomResourceDefinitions of {name} to Argo CD: {error.message}")
            return []

    others = [app.name for app in tree.applications if app.chart and app.name != APPLICATION]
    objects = [obj for objects in in_parallel(rendered, others) for obj in objects if obj["kind"] == DEFINITION]
    missing = [obj for obj in objects if kube.find(obj["apiVersion"], DEFINITION, obj["metadata"]["name"]) is None]
    report(f"{len(missing)} CustomResourceDefinitions of {len(others)} charts")
    return missing


def _in_order(objects: Iterable[Obj]) -> list[list[Obj]]:
    groups: list[list[Obj]] = [[], [], []]
    for obj in objects:
        is_workload = obj["kind"] in readiness.WORKLOADS
        groups[0 if obj["kind"] == DEFINITION else 2 if is_workload else 1].append(obj)
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
    """Run a Job and delete it; one that has failed stays, for its log.

    It gets no time to live: Kubernetes would delete it before a busy or suspended machine has seen how it ended.
    """
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    lasting = {**job, "spec": {key: value for key, value in job["spec"].items() if key != "ttlSecondsAfterFinished"}}

    def finished() -> Obj | None:
        live = kube.get(job["apiVersion"], "Job", name, namespace)
        if readiness.failed(live) or not readiness.why_not(live):
            return live
        if reason := next(readiness.why_pods_wait(kube, namespace, [name]), ""):
            raise FluobookError(f"pod {reason}")  # the wait goes on, and names it when it ends
        return None

    kube.delete(job["apiVersion"], "Job", name, namespace)
    context.wait_until("argocd", f"hook Job {name} to be created", lambda: kube.create(lasting))
    live = context.wait_until("argocd", f"hook Job {name} to finish", finished)
    if readiness.failed(live):
        raise TaskFailed(
            f"hook Job {namespace}/{name} failed: {readiness.why_not(live)}",
            system="kubernetes",
            remedy=f"{KUBECTL} -n {namespace} logs job/{name}, then run the stage again",
        )
    kube.delete(job["apiVersion"], "Job", name, namespace)


def _await(context: RunContext, kind: str, name: str, report: Reporter) -> Mapping[str, Any]:
    kube = context.kube()
    pods = readiness.WaitingPods(lambda: readiness.why_pods_wait(kube, NAMESPACE, [name]))

    def ready() -> Obj | None:
        live = kube.get(APPS, kind, name, NAMESPACE)
        if not (why := readiness.why_not(live)):
            return live
        reason, lasting = pods.reasons()
        if lasting:
            remedy = "correct the chart's values in infrastructure/argocd/application.yaml, then run the stage again"
            raise TaskFailed(f"{kind} {name} cannot become ready: pod {lasting}", system="kubernetes", remedy=remedy)
        report("; ".join(filter(None, (why, reason))))
        return None

    try:
        live = context.wait_until("argocd", f"{kind} {name} to be ready", ready, interval=0.1, final=(TaskFailed,))
    except DeadlineExceeded as error:
        workload = kube.find(APPS, kind, name, NAMESPACE)
        error.cause = (readiness.why_with_its_pods(kube, workload) if workload else "it does not exist") or error.cause
        error.remedy = f"{KUBECTL} -n {NAMESPACE} describe {kind.lower()} {name}"
        raise
    return {"resourceVersion": live["metadata"]["resourceVersion"]}


STAGE = Stage(7, NAME, "Install Argo CD with KSOPS", observe, plan, perform, verify, uses=("kubernetes",))
