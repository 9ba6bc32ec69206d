"""The tasks of one sync and their order: by phase, wave, kind and name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.argocd.names import Key, options_of
from fluobook_lab.argocd.targets import PHASES, Target, wave_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.argocd.comparison import Comparison
    from fluobook_lab.kube.objects import Obj

KINDS = (
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
)
"""The order of kinds inside a wave (gitops-engine); any other kind comes after these."""

PENDING, RUNNING, SUCCEEDED, FAILED = "", "Running", "Succeeded", "Failed"


@dataclass
class Task:
    """One object in one phase of a sync, and how far it is.

    Args:
        key: the object's.
        phase: of the sync.
        wave: in the phase.
        target: what to apply; None prunes.
        doomed: what to prune.
    """

    key: Key
    phase: str
    wave: int
    target: Target | None = None
    doomed: Obj | None = field(default=None, repr=False)
    state: str = PENDING
    status: str = ""
    message: str = ""

    @property
    def is_hook(self) -> bool:
        """Whether it is run rather than kept."""
        return self.target is not None and self.target.is_hook

    @property
    def completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in {SUCCEEDED, FAILED}

    @property
    def step(self) -> tuple[int, int]:
        """Phase and wave, as a place in the order."""
        return PHASES.index(self.phase), self.wave

    def end(self, state: str, status: str, message: str) -> None:
        """Say how far it is, and how it went."""
        self.state, self.status, self.message = state, status, message


def tasks(targets: Iterable[Target], comparison: Comparison, *, prune: bool, prune_last: bool = False) -> list[Task]:
    """The tasks of a sync, in order; those of phase SyncFail are among them.

    Args:
        targets: what should be, hooks included.
        comparison: says what is to be pruned.
        prune: whether it is; else those tasks are there and will be skipped.
        prune_last: in a wave of its own after all others.
    """
    made = [Task(target.key, phase, target.wave, target) for target in targets for phase in target.phases]
    doomed = [item.live for item in comparison.items if item.prunes and item.live]
    waves = sorted({wave_of(obj) for obj in doomed})
    mirrored = dict(zip(waves, reversed(waves), strict=True))  # what came first goes last
    last = max([task.wave for task in made if task.phase == "Sync"] + waves, default=0) + 1
    for obj, key in ((item.live, item.key) for item in comparison.items if item.prunes and item.live):
        late = prune_last or "PruneLast=true" in options_of(obj)
        task = Task(key, "Sync", last if late else mirrored[wave_of(obj)], doomed=obj)
        if not prune or "Prune=false" in options_of(obj):
            task.end(SUCCEEDED, "PruneSkipped", "ignored (no prune)" if prune else "ignored (requires pruning)")
        made.append(task)
    return sorted(made, key=_order)


def _order(task: Task) -> tuple[object, ...]:
    kind = KINDS.index(task.key.kind) if task.key.kind in KINDS else len(KINDS)
    return (*task.step, kind, task.key.name, task.key.namespace)
