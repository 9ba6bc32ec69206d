"""One sync operation: phases and waves, each let go only when the one before is healthy (after gitops-engine).

A sync is stepped, never run through: at each look at the Application the tasks under way are judged by the live
objects, and the next wave is applied once nothing of the last is still on its way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.project import forbids
from fluobook_lab.argocd.targets import skips_dry_run
from fluobook_lab.argocd.tasks import FAILED, PENDING, RUNNING, SUCCEEDED, Task
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.argocd.applying import Applier
    from fluobook_lab.argocd.cluster import Cluster
    from fluobook_lab.argocd.health import Judge
    from fluobook_lab.kube.objects import Obj

INVALID = "one or more synchronization tasks are not valid"
DRY_RUN = "one or more objects failed to apply (dry run)"
APPLY = "one or more objects failed to apply"
UNSUCCESSFUL = "one or more synchronization tasks completed unsuccessfully"
ALL_RUN = "successfully synced (all tasks run)"
NO_MORE = "successfully synced (no more tasks)"


@dataclass(frozen=True)
class Outcome:
    """Where a sync stands: its phase (Running, Succeeded, Failed) and the message that Argo CD shows."""

    phase: str
    message: str


@dataclass
class Sync:
    """A sync under way.

    Args:
        tasks: in order.
        applier: writes.
        cluster: what is live.
        project: the AppProject.
        destination: the Application's.
        clock: world seconds now.
        wave_delay: world seconds after each wave but the last.
    """

    tasks: list[Task]
    applier: Applier
    cluster: Cluster
    project: Obj
    destination: dict[str, Any]
    clock: Callable[[], float]
    wave_delay: float
    not_before: float = 0.0
    outcome: Outcome = Outcome(RUNNING, "")
    _checked: bool = field(default=False, repr=False)

    def step(self, judge: Judge) -> Outcome:
        """Go as far as can be gone now."""
        if not self._checked:
            self._checked = True
            if refusal := self._check():
                return self._end(refusal)
        self._look(judge)
        regular = [task for task in self.tasks if task.phase != "SyncFail"]
        running = [task for task in regular if task.state == RUNNING and (task.is_hook or self._several_steps())]
        if running:
            return self._running(running)
        if any(task.state == FAILED for task in regular):
            return self._fail(UNSUCCESSFUL, judge)
        pending = [task for task in regular if task.state == PENDING]
        if not pending:
            return self._end(Outcome(SUCCEEDED, NO_MORE))
        if self.clock() < self.not_before:
            return self.outcome
        return self._wave(pending, judge)

    # ---- the checks before anything is written -----------------------------------------------------------------

    def _check(self) -> Outcome | None:
        """Every task must be valid and pass a dry run, or none is run."""
        coming = {
            (task.target.obj["spec"]["group"], task.target.obj["spec"]["names"]["kind"])
            for task in self.tasks
            if task.target and task.key.kind == "CustomResourceDefinition"
        }
        for task in self.tasks:
            if task.target and (problem := self._invalid(task, coming)):
                task.end(FAILED, "SyncFailed", problem)
        if any(task.state == FAILED for task in self.tasks):
            return self._failed(INVALID)
        for task in self.tasks:
            if task.target and not task.is_hook and self._known(task) and (problem := self._refused(task)):
                task.end(FAILED, "SyncFailed", problem)
        return self._failed(DRY_RUN) if any(task.state == FAILED for task in self.tasks) else None

    def _invalid(self, task: Task, coming: set[tuple[str, str]]) -> str:
        target = task.target
        if target is None:
            return ""
        namespaced = self.cluster.namespaced(target.obj)
        if not self._known(task) and (task.key.group, task.key.kind) not in coming and not skips_dry_run(target):
            where = f"{task.key.namespace}/{task.key.name}"
            return (
                f"The Kubernetes API could not find {task.key.group}/{task.key.kind} for requested resource {where}. "
                f'Make sure the "{task.key.kind}" CRD is installed on the destination cluster.'
            )
        return forbids(self.project, self.destination, task.key, namespaced=namespaced)

    def _known(self, task: Task) -> bool:
        obj = task.target.obj if task.target else task.doomed or {}
        return self.cluster.store.registry.find(obj.get("apiVersion", ""), obj.get("kind", "")) is not None

    def _refused(self, task: Task) -> str:
        """What a dry run says; a namespace that this sync brings itself is no reason."""
        if task.target is None:
            return ""
        brought = {other.key.name for other in self.tasks if other.key.kind == "Namespace"}
        if task.key.namespace in brought and not self.cluster.store.find("v1", "Namespace", task.key.namespace):
            return ""
        try:
            self.applier.apply(task.target, dry_run=True)
        except ApiError as error:
            return error.message
        return ""

    # ---- the waves ---------------------------------------------------------------------------------------------

    def _look(self, judge: Judge) -> None:
        """Judge what is under way by what is live."""
        for task in self.tasks:
            if task.state != RUNNING or task.target is None:
                continue
            live = self.cluster.live(task.target.obj)
            if live is None:
                if task.is_hook:
                    task.end(FAILED, task.status, "hook was deleted before it completed")
                continue
            health = judge.health(live)
            if health is None or health.status == "Healthy":
                task.end(SUCCEEDED, task.status, health.message if task.is_hook and health else task.message)
            elif health.status == "Degraded":
                task.end(FAILED, task.status, health.message or task.message)
            if task.is_hook and task.completed:
                self._clear(task, live)

    def _clear(self, task: Task, live: Obj) -> None:
        policy = "HookSucceeded" if task.state == SUCCEEDED else "HookFailed"
        if task.target and policy in task.target.delete_policies:
            self.applier.delete(live)

    def _wave(self, pending: list[Task], judge: Judge) -> Outcome:
        step = pending[0].step
        now = [task for task in pending if task.step == step]
        later = [task for task in pending if task.step != step or task.is_hook]
        for task in now:
            self._run(task, judge)
        if any(task.state == FAILED and task.status == "SyncFailed" for task in now):
            return self._fail(APPLY, judge)
        if not later:
            for task in now:
                task.state = task.state if task.completed else SUCCEEDED
            return self._end(Outcome(SUCCEEDED, ALL_RUN))
        self.not_before = self.clock() + self.wave_delay
        running = [task for task in now if task.state == RUNNING]
        return self._running(running or later)

    def _run(self, task: Task, judge: Judge) -> None:
        try:
            if task.target is None and task.doomed is not None:
                self.applier.delete(task.doomed)
                task.end(SUCCEEDED, "Pruned", "pruned")
            elif task.target is not None:
                message = self.applier.apply(task.target)
                live = self.cluster.live(task.target.obj)
                has_health = live is not None and judge.health(live) is not None
                task.end(RUNNING if has_health else SUCCEEDED, "Synced", message)
        except ApiError as error:
            task.end(FAILED, "SyncFailed", error.message)

    def _several_steps(self) -> bool:
        steps = {task.step for task in self.tasks if task.phase != "SyncFail"}
        return len(steps) > 1

    # ---- the words ---------------------------------------------------------------------------------------------

    def _running(self, tasks: list[Task]) -> Outcome:
        first, more = tasks[0], len(tasks) - 1
        what = "completion of hook" if first.is_hook else "healthy state of"
        message = f"waiting for {what} {first.key.path}"
        if more:
            message += f" and {more} more {'hooks' if first.is_hook else 'resources'}"
        return self._end(Outcome(RUNNING, message))

    def _fail(self, why: str, judge: Judge) -> Outcome:
        """Run what is to be run when a sync fails, then fail."""
        for task in self.tasks:
            if task.phase == "SyncFail" and task.state == PENDING:
                self._run(task, judge)
        return self._end(self._failed(why))

    def _failed(self, why: str) -> Outcome:
        reasons = [task.message for task in self.tasks if task.state == FAILED and task.message]
        return Outcome(FAILED, f"{why}, reason: {','.join(reasons)}" if reasons else why)

    def _end(self, outcome: Outcome) -> Outcome:
        self.outcome = outcome
        return outcome
