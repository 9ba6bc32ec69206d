"""What should be in the cluster: an Application's documents with their namespace, tracking, phase and wave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.argocd.names import (
    COMPARE,
    HOOK,
    HOOK_DELETE,
    INSTANCE_LABEL,
    TRACKING,
    WAVE,
    Key,
    annotation,
    key_of,
    options_of,
    tracking_id,
)
from fluobook_lab.kube.objects import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluobook_lab.kube.objects import Obj

PHASES = ("PreSync", "Sync", "PostSync", "SyncFail")
HELM_HOOK, HELM_WEIGHT, HELM_DELETE = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"
HELM_PHASES = {
    "crd-install": "PreSync",
    "pre-install": "PreSync",
    "pre-upgrade": "PreSync",
    "post-install": "PostSync",
    "post-upgrade": "PostSync",
}
"""What Argo CD makes of Helm's hooks; those for deletion, rollback and tests are not run."""
DELETE_POLICIES = {
    "before-hook-creation": "BeforeHookCreation",
    "hook-succeeded": "HookSucceeded",
    "hook-failed": "HookFailed",
}


@dataclass(frozen=True)
class Target:
    """One object as it should be.

    Args:
        obj: the object, tracking included.
        key: what it is known by.
        phases: the phases it is applied in; more than one, or another than Sync, only for hooks.
        wave: within a phase.
        is_hook: whether it is run rather than kept.
    """

    obj: Obj = field(repr=False)
    key: Key
    phases: tuple[str, ...]
    wave: int
    is_hook: bool

    @property
    def delete_policies(self) -> frozenset[str]:
        """When a hook is removed: before it is created anew, unless it says otherwise."""
        own = annotation(self.obj, HOOK_DELETE) or annotation(self.obj, HELM_DELETE)
        told = {DELETE_POLICIES.get(part.strip(), part.strip()) for part in own.split(",") if part.strip()}
        return frozenset(told or {"BeforeHookCreation"})

    @property
    def ignored_when_extra(self) -> bool:
        """Whether it does not make its Application OutOfSync when it is to be pruned."""
        return "IgnoreExtraneous" in annotation(self.obj, COMPARE)


def wave_of(obj: Obj) -> int:
    """The sync wave, else the weight of a Helm hook, else 0."""
    told = annotation(obj, WAVE) or annotation(obj, HELM_WEIGHT)
    try:
        return int(told or 0)
    except ValueError:
        return 0


def targets(
    app: str, documents: Iterable[Obj], *, namespace: str, tracking: str, namespaced: Callable[[Obj], bool]
) -> tuple[list[Target], list[str]]:
    """The targets of an Application, and a warning for each document that is there twice.

    Args:
        app: the Application's name.
        documents: as rendered; they are copied.
        namespace: for namespaced objects that name none.
        tracking: how an object is marked as the Application's: by annotation, by label, or both.
        namespaced: whether an object lives in a namespace (true where its kind is unknown).
    """
    found: dict[Key, Target] = {}
    warnings = []
    for document in documents:
        if not document.get("kind") or not (document.get("metadata") or {}).get("name"):
            continue
        target = _target(app, clone(document), namespace, tracking, namespaced)
        if not target.phases:
            continue
        if target.key in found:
            name = "/".join(target.key)
            warnings.append(f"Resource {name} appeared 2 times among application resources.")
        found[target.key] = target
    return list(found.values()), warnings


def _target(app: str, obj: Obj, namespace: str, tracking: str, namespaced: Callable[[Obj], bool]) -> Target:
    metadata = obj["metadata"]
    if not namespaced(obj):
        metadata.pop("namespace", None)
    elif not metadata.get("namespace"):
        metadata["namespace"] = namespace
    phases, is_hook = _phases(obj)
    if not is_hook:
        if "annotation" in tracking:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), TRACKING: tracking_id(app, obj)}
        if "label" in tracking:
            metadata["labels"] = {**(metadata.get("labels") or {}), INSTANCE_LABEL: app}
    return Target(obj, key_of(obj), phases, wave_of(obj), is_hook)


def _phases(obj: Obj) -> tuple[tuple[str, ...], bool]:
    """The phases of an object, and whether it is a hook; no phases for what is never applied."""
    own = [part.strip() for part in annotation(obj, HOOK).split(",") if part.strip()]
    if own:
        return tuple(phase for phase in PHASES if phase in own), True
    helm = [part.strip() for part in annotation(obj, HELM_HOOK).split(",") if part.strip()]
    if "crd-install" in helm and obj["kind"] == "CustomResourceDefinition":
        return ("Sync",), False
    if helm:
        wanted = {HELM_PHASES[part] for part in helm if part in HELM_PHASES}
        return tuple(phase for phase in PHASES if phase in wanted), True
    return ("Sync",), False


def is_run(obj: Obj) -> bool:
    """Whether an object is a hook, Argo CD's or Helm's."""
    return bool(annotation(obj, HOOK) or annotation(obj, HELM_HOOK))


def skips_dry_run(target: Target) -> bool:
    """Whether a missing kind is no reason to refuse it before the sync."""
    return "SkipDryRunOnMissingResource=true" in options_of(target.obj)
