"""One sync: its tasks in phases and waves, each wave applied once the previous one is healthy (as in gitops-engine).

A sync never blocks. At each step, running tasks are assessed by their live objects, and the next wave is applied when
nothing of the last one is still in progress.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.comparison import LAST_APPLIED, ignored_paths, with_live_values
from fluobook_lab.argocd.configuration import forbids
from fluobook_lab.argocd.objects import DELETE_HOOKS, MANAGER, PHASES, Key, is_set, options_of, wave_of
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fluobook_lab.argocd.comparison import Cluster, Comparison
    from fluobook_lab.argocd.health import HealthChecks
    from fluobook_lab.argocd.objects import Target
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.objects import Obj

KINDS = """
    Namespace NetworkPolicy ResourceQuota LimitRange PodSecurityPolicy PodDisruptionBudget ServiceAccount Secret
    SecretList ConfigMap StorageClass PersistentVolume PersistentVolumeClaim CustomResourceDefinition ClusterRole
    ClusterRoleList ClusterRoleBinding ClusterRoleBindingList Role RoleList RoleBinding RoleBindingList Service
    DaemonSet Pod ReplicationController ReplicaSet Deployment HorizontalPodAutoscaler StatefulSet Job CronJob
    IngressClass Ingress APIService
"""
KIND_ORDER = {kind: position for position, kind in enumerate(KINDS.split())}
"""The order of kinds inside a wave (gitops-engine); all other kinds follow."""
PENDING, RUNNING, SUCCEEDED, FAILED = "", "Running", "Succeeded", "Failed"

INVALID = "one or more synchronization tasks are not valid"
DRY_RUN = "one or more objects failed to apply (dry run)"
APPLY = "one or more objects failed to apply"
UNSUCCESSFUL = "one or more synchronization tasks completed unsuccessfully"
ALL_RUN = "successfully synced (all tasks run)"
NO_MORE = "successfully synced (no more tasks)"
WEBHOOK = (
    'Internal error occurred: failed calling webhook "validate.lab.invalid": failed to call webhook: '
    'Post "https://webhook.lab.invalid:443/validate?timeout=10s": dial tcp 10.96.0.9:443: connect: connection refused'
)
LARGEST_ANNOTATIONS = 262144


@dataclass
class Task:
    """One object in one phase of a sync, and its state.

    Args:
        key: the object's.
        phase: of the sync.
        wave: in the phase.
        target: what to apply; None prunes.
        pruned: the object to prune.
        asks: whether a person must approve that it is pruned.
    """

    key: Key
    phase: str
    wave: int
    target: Target | None = None
    pruned: Obj | None = field(default=None, repr=False)
    asks: bool = False
    state: str = PENDING
    status: str = ""
    message: str = ""

    @property
    def obj(self) -> Obj:
        """The object to apply or to prune."""
        return self.target.obj if self.target else self.pruned or {}

    @property
    def is_hook(self) -> bool:
        """Whether it is a hook."""
        return self.target is not None and self.target.is_hook

    @property
    def completed(self) -> bool:
        """Whether it succeeded or failed."""
        return self.state in {SUCCEEDED, FAILED}

    @property
    def step(self) -> tuple[int, int]:
        """Its position: phase and wave."""
        return PHASES.index(self.phase), self.wave

    def set(self, state: str, status: str, message: str) -> None:
        """Set the state, the status of the object (Synced, SyncFailed…) and the message."""
        self.state, self.status, self.message = state, status, message


def tasks(targets: Iterable[Target], comparison: Comparison, *, prune: bool, options: Iterable[str] = ()) -> list[Task]:
    """The tasks of a sync in order, including those of phase SyncFail.

    Args:
        targets: the desired state, including hooks.
        comparison: determines what to prune.
        prune: whether to prune; if not, those tasks are skipped.
        options: the Application's: Prune=false prunes nothing, PruneLast=true in a separate wave after all others.
    """
    steps = ((target, phase) for target in targets for phase in target.phases if phase not in DELETE_HOOKS)
    result = [Task(target.key, phase, target.wave, target) for target, phase in steps]
    pruned = [(item.key, item.live) for item in comparison.items if item.prunes and item.live]
    waves = sorted({wave_of(obj) for _, obj in pruned})
    reverse = dict(zip(waves, reversed(waves), strict=True))  # what was created first is pruned last
    last = max([task.wave for task in result if task.phase == "Sync"] + waves, default=0) + 1
    for key, obj in pruned:
        late = "PruneLast=true" in {*options, *options_of(obj)}
        asks = is_set("Prune=confirm", obj, options)
        task = Task(key, "Sync", last if late else reverse[wave_of(obj)], pruned=obj, asks=asks)
        if not prune or is_set("Prune=false", obj, options):
            task.set(SUCCEEDED, "PruneSkipped", "ignored (no prune)" if prune else "ignored (requires pruning)")
        result.append(task)

    def order(task: Task) -> tuple[object, ...]:
        kind = KIND_ORDER.get(task.key.kind, len(KIND_ORDER))
        return (*task.step, kind, task.key.name, task.key.namespace)

    return sorted(result, key=order)


class Applier:
    """Writes the objects of one Application as its sync options demand.

    Args:
        cluster: where it writes.
        options: the Application's `syncOptions`.
        ignored: its `ignoreDifferences`.
        faults: the faults to inject.
    """

    def __init__(
        self, cluster: Cluster, options: Iterable[str], ignored: Iterable[Mapping[str, Any]], faults: Faults
    ) -> None:
        self._cluster, self._faults = cluster, faults
        self._options, self._ignored = frozenset(options), tuple(ignored)

    def apply(self, target: Target, *, dry_run: bool = False) -> str:
        """Apply it; the result as kubectl words it.

        Raises:
            ApiError: the server refused.
        """
        live, obj, own = self._cluster.live(target.obj), target.obj, options_of(target.obj)
        if live is not None and "RespectIgnoreDifferences=true" in self._options:
            obj = with_live_values(obj, live, ignored_paths(target.key, self._ignored))
        server_side = "ServerSideApply=false" not in own and "ServerSideApply=true" in own | self._options
        if not server_side:
            obj = _with_last_applied(obj)
        if not dry_run and live is not None and target.is_hook and "BeforeHookCreation" in target.delete_policies:
            self._cluster.delete(live)
        if not dry_run and self._faults.take("argocd.webhook-refuses-once"):
            raise ApiError(500, "InternalError", WEBHOOK)
        applied = self._cluster.store.apply(obj, manager=MANAGER, force=True, dry_run=dry_run)
        name = f"{target.key.kind.lower()}{'.' + target.key.group if target.key.group else ''}/{target.key.name}"
        if server_side:
            return f"{name} serverside-applied"
        same = live is not None and applied["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        return f"{name} {'created' if live is None else 'unchanged' if same else 'configured'}"

    def create_namespace(self, name: str, metadata: Mapping[str, Any] | None) -> None:
        """Create the destination's namespace, or set the labels and annotations that the Application manages."""
        if metadata is None and self._cluster.store.find("v1", "Namespace", name):
            return
        managed = {key: (metadata or {})[key] for key in ("labels", "annotations") if (metadata or {}).get(key)}
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **managed}}
        self._cluster.store.apply(obj, manager=MANAGER, force=True)


def _with_last_applied(obj: Obj) -> Obj:
    """The object with the annotation of client-side apply.

    Raises:
        ApiError: 422, the object is too large for it.
    """
    text = json.dumps(obj, separators=(",", ":")) + "\n"
    annotations = obj["metadata"].get("annotations") or {}
    if len(text) + sum(len(key) + len(value) for key, value in annotations.items()) > LARGEST_ANNOTATIONS:
        group = obj["apiVersion"].rpartition("/")[0]
        kind = f"{obj['kind']}.{group}" if group else obj["kind"]
        problem = f"metadata.annotations: Too long: must have at most {LARGEST_ANNOTATIONS} bytes"
        raise ApiError(422, "Invalid", f'{kind} "{obj["metadata"]["name"]}" is invalid: {problem}')
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}


@dataclass(frozen=True)
class Outcome:
    """The state of a sync: its phase (Running, Succeeded, Failed) and the message that Argo CD shows."""

    phase: str
    message: str


@dataclass
class Sync:
    """A sync in progress.

    Args:
        tasks: in order.
        applier: writes.
        cluster: the live state.
        project: the AppProject.
        destination: the Application's.
        clock: lab seconds now.
        wave_delay: lab seconds after each wave except the last.
        approved: whether a person has approved to prune what asks for it.
    """

    tasks: list[Task]
    applier: Applier
    cluster: Cluster
    project: Obj
    destination: dict[str, Any]
    clock: Callable[[], float]
    wave_delay: float
    approved: Callable[[], bool]
    not_before: float = 0.0
    outcome: Outcome = Outcome(RUNNING, "")
    _checked: bool = field(default=False, repr=False)

    def step(self, checks: HealthChecks) -> Outcome:
        """Do what can be done now, without waiting."""
        self.outcome = self._step(checks)
        return self.outcome

    def _step(self, checks: HealthChecks) -> Outcome:
        if not self._checked:
            self._checked = True
            if refusal := self._check():
                return refusal
        self._assess(checks)
        regular = [task for task in self.tasks if task.phase != "SyncFail"]
        several_steps = len({task.step for task in regular}) > 1
        running = [task for task in regular if task.state == RUNNING and (task.is_hook or several_steps)]
        if running:
            return _waiting_for(running)
        if any(task.state == FAILED for task in regular):
            return self._fail(UNSUCCESSFUL, checks)
        pending = [task for task in regular if task.state == PENDING]
        if not pending:
            return Outcome(SUCCEEDED, NO_MORE)
        return self.outcome if self.clock() < self.not_before else self._wave(pending, checks)

    def _check(self) -> Outcome | None:
        """Refuse the whole sync unless every task is valid and passes a dry run."""
        new_kinds = {
            (task.obj["spec"]["group"], task.obj["spec"]["names"]["kind"])
            for task in self.tasks
            if task.target and task.key.kind == "CustomResourceDefinition"
        }
        for task in self.tasks:
            if task.target and (problem := self._invalid(task, new_kinds)):
                task.set(FAILED, "SyncFailed", problem)
        if any(task.state == FAILED for task in self.tasks):
            return self._failed(INVALID)
        namespaces = {task.key.name for task in self.tasks if task.key.kind == "Namespace"}
        for task in self.tasks:
            # The namespace that this sync creates first does not exist yet.
            missing = task.key.namespace in namespaces and not self._exists(task.key.namespace)
            if task.target and not task.is_hook and self._is_served(task) and not missing:
                try:
                    self.applier.apply(task.target, dry_run=True)
                except ApiError as error:
                    task.set(FAILED, "SyncFailed", error.message)
        return self._failed(DRY_RUN) if any(task.state == FAILED for task in self.tasks) else None

    def _invalid(self, task: Task, new_kinds: set[tuple[str, str]]) -> str:
        group, kind = task.key.group, task.key.kind
        optional = "SkipDryRunOnMissingResource=true" in options_of(task.obj)
        if not self._is_served(task) and (group, kind) not in new_kinds and not optional:
            return (
                f"The Kubernetes API could not find {group}/{kind} for requested resource "
                f'{task.key.namespace}/{task.key.name}. Make sure the "{kind}" CRD is installed on the destination '
                "cluster."
            )
        return forbids(self.project, self.destination, task.key, namespaced=self.cluster.namespaced(task.obj))

    def _is_served(self, task: Task) -> bool:
        return self.cluster.store.registry.find(task.obj.get("apiVersion", ""), task.obj.get("kind", "")) is not None

    def _exists(self, namespace: str) -> bool:
        return self.cluster.store.find("v1", "Namespace", namespace) is not None

    def _assess(self, checks: HealthChecks) -> None:
        """Update the running tasks from the health of their live objects."""
        for task in self.tasks:
            if task.state != RUNNING or task.target is None:
                continue
            live = self.cluster.live(task.target.obj)
            if live is None:
                if task.is_hook:
                    task.set(FAILED, task.status, "hook was deleted before it completed")
                continue
            health = checks.health(live)
            if health is None or health.status == "Healthy":
                task.set(SUCCEEDED, task.status, health.message if task.is_hook and health else task.message)
            elif health.status == "Degraded":
                task.set(FAILED, task.status, health.message or task.message)
            policy = "HookSucceeded" if task.state == SUCCEEDED else "HookFailed"
            if task.is_hook and task.completed and policy in task.target.delete_policies:
                self.cluster.delete(live)

    def _wave(self, pending: list[Task], checks: HealthChecks) -> Outcome:
        step = pending[0].step
        current = [task for task in pending if task.step == step]
        later = [task for task in pending if task.step != step or task.is_hook]
        asking = [f"{task.key.kind}/{task.key.name}" for task in current if task.asks]
        if asking and not self.approved():
            return Outcome(RUNNING, f"waiting for pruning confirmation of {', '.join(asking)}")
        for task in current:
            self._run(task, checks)
        if any(task.state == FAILED and task.status == "SyncFailed" for task in current):
            return self._fail(APPLY, checks)
        if not later:
            for task in current:
                task.state = task.state if task.completed else SUCCEEDED
            return Outcome(SUCCEEDED, ALL_RUN)
        self.not_before = self.clock() + self.wave_delay
        return _waiting_for([task for task in current if task.state == RUNNING] or later)

    def _run(self, task: Task, checks: HealthChecks) -> None:
        try:
            if task.target is None:
                self.cluster.delete(task.obj)
                task.set(SUCCEEDED, "Pruned", "pruned")
                return
            message = self.applier.apply(task.target)
            live = self.cluster.live(task.target.obj)
            has_health = live is not None and checks.health(live) is not None
            task.set(RUNNING if has_health else SUCCEEDED, "Synced", message)
        except ApiError as error:
            task.set(FAILED, "SyncFailed", error.message)

    def _fail(self, reason: str, checks: HealthChecks) -> Outcome:
        """Run the tasks of phase SyncFail, then fail."""
        for task in self.tasks:
            if task.phase == "SyncFail" and task.state == PENDING:
                self._run(task, checks)
        return self._failed(reason)

    def _failed(self, reason: str) -> Outcome:
        messages = [task.message for task in self.tasks if task.state == FAILED and task.message]
        return Outcome(FAILED, f"{reason}, reason: {','.join(messages)}" if messages else reason)


def _waiting_for(tasks: list[Task]) -> Outcome:
    first, more = tasks[0], len(tasks) - 1
    message = f"waiting for {'completion of hook' if first.is_hook else 'healthy state of'} {first.key.path}"
    if more:
        message += f" and {more} more {'hooks' if first.is_hook else 'resources'}"
    return Outcome(RUNNING, message)
