"""Argo CD's names and annotations, and the targets of an Application: what should be in the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook_lab.kube.objects import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluobook_lab.kube.objects import Obj

NAMESPACE = "argocd"
API = "argoproj.io/v1alpha1"
IN_CLUSTER = "https://kubernetes.default.svc"
CONTROLLER = "argocd-application-controller"
"""Field manager of the controller's writes to Applications."""
MANAGER = "argocd-controller"
"""Field manager of its writes to all other objects."""

PREFIX = "argocd.argoproj.io/"
TRACKING, WAVE, REFRESH = PREFIX + "tracking-id", PREFIX + "sync-wave", PREFIX + "refresh"
HOOK, HOOK_DELETE = PREFIX + "hook", PREFIX + "hook-delete-policy"
OPTIONS, IGNORE_HEALTH = PREFIX + "sync-options", PREFIX + "ignore-healthcheck"
COMPARE = PREFIX + "compare-options"
APPROVED = PREFIX + "deletion-approved"
INSTANCE_LABEL = "app.kubernetes.io/instance"
FINALIZER = "resources-finalizer.argocd.argoproj.io"
DELETE_HOOKS = {
    "PreDelete": "pre-delete-finalizer." + PREFIX[:-1],
    "PostDelete": "post-delete-finalizer." + PREFIX[:-1],
}
"""The finalizer of an Application with hooks of a phase of deletion; another, with `/cleanup`, removes the hooks."""

PHASES = ("PreSync", "Sync", "PostSync", "SyncFail")
HELM_HOOK, HELM_WEIGHT, HELM_DELETE = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"
HELM_PHASES = {
    **dict.fromkeys(("crd-install", "pre-install", "pre-upgrade"), "PreSync"),
    **dict.fromkeys(("post-install", "post-upgrade"), "PostSync"),
    "pre-delete": "PreDelete",
    "post-delete": "PostDelete",
}
"""The phases of Helm's hooks; hooks for rollback and tests are not run."""


class Key(NamedTuple):
    """The identity of an object, whatever its version."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """As sync messages write it: "apps/Deployment/web"."""
        return f"{self.group}/{self.kind}/{self.name}"


def group_of(obj: Obj) -> str:
    """The API group, "" for core."""
    return obj.get("apiVersion", "").rpartition("/")[0]


def key_of(obj: Obj) -> Key:
    """The key of an object."""
    metadata = obj["metadata"]
    return Key(group_of(obj), obj["kind"], metadata.get("namespace", ""), metadata.get("name", ""))


def annotation(obj: Obj, name: str) -> str:
    """An annotation's value, "" if the object does not have it."""
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def listed(obj: Obj, name: str) -> list[str]:
    """The parts of an annotation with a comma-separated list."""
    return [part.strip() for part in annotation(obj, name).split(",") if part.strip()]


def options_of(obj: Obj) -> frozenset[str]:
    """The sync options in an object's annotation: {"Prune=false", …}."""
    return frozenset(listed(obj, OPTIONS))


def is_set(option: str, obj: Obj, options: Iterable[str]) -> bool:
    """Whether an object has an option such as Prune=false: by its annotation, else by one of its Application."""
    own = [each for each in options_of(obj) if each.startswith(f"{option.partition('=')[0]}=")]
    return option in (own or options)


def is_approved(app: Obj, since: str) -> bool:
    """Whether a person has approved, since a time, to prune or delete what has the option `confirm`."""
    try:
        return datetime.fromisoformat(annotation(app, APPROVED)) >= datetime.fromisoformat(since)
    except (ValueError, TypeError):
        return False


def operation_phase(app: Obj) -> str:
    """`status.operationState.phase` of an Application, "" before its first operation."""
    return str(((app.get("status") or {}).get("operationState") or {}).get("phase", ""))


def sources_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All sources of an Application, from `spec.sources` or `spec.source`."""
    return list(spec.get("sources") or [spec.get("source") or {}])


def tracking_id(app: str, obj: Obj) -> str:
    """The annotation value that marks an object as part of an Application."""
    key = key_of(obj)
    return f"{app}:{key.group}/{key.kind}:{key.namespace}/{key.name}"


def is_hook(obj: Obj) -> bool:
    """Whether an object is a hook of Argo CD or Helm."""
    return bool(annotation(obj, HOOK) or annotation(obj, HELM_HOOK))


@dataclass(frozen=True)
class Target:
    """The desired state of one object.

    Args:
        obj: the object, with its tracking annotation.
        key: its identity.
        phases: the phases that apply it; only hooks have several, or another one than Sync.
        wave: the wave in each phase.
        is_hook: whether it runs once per sync, and is not part of the comparison.
    """

    obj: Obj = field(repr=False)
    key: Key
    phases: tuple[str, ...]
    wave: int
    is_hook: bool

    @property
    def delete_policies(self) -> frozenset[str]:
        """When a hook is deleted; by default before its next creation."""
        helm = [part.title().replace("-", "") for part in listed(self.obj, HELM_DELETE)]  # before-hook-creation
        return frozenset(listed(self.obj, HOOK_DELETE) or helm or ["BeforeHookCreation"])


def wave_of(obj: Obj) -> int:
    """The sync wave, else the weight of a Helm hook, else 0."""
    try:
        return int(annotation(obj, WAVE) or annotation(obj, HELM_WEIGHT) or 0)
    except ValueError:
        return 0


def targets(
    app: str, documents: Iterable[Obj], *, namespace: str, tracking: str, namespaced: Callable[[Obj], bool]
) -> tuple[list[Target], list[str]]:
    """The targets of an Application, and a warning for each document that occurs twice.

    Args:
        app: the Application's name.
        documents: the rendered documents; they are copied.
        namespace: for namespaced objects that name none.
        tracking: how objects are marked: "annotation", "label" or "annotation+label".
        namespaced: whether an object belongs to a namespace (true where its kind is unknown).
    """
    result: dict[Key, Target] = {}
    warnings = []
    for document in documents:
        if not document.get("kind") or not (document.get("metadata") or {}).get("name"):
            continue
        target = _target(app, clone(document), namespace, tracking, namespaced)
        if not target.phases:
            continue
        if target.key in result:
            warnings.append(f"Resource {'/'.join(target.key)} appeared 2 times among application resources.")
        result[target.key] = target
    return list(result.values()), warnings


def _target(app: str, obj: Obj, namespace: str, tracking: str, namespaced: Callable[[Obj], bool]) -> Target:
    metadata = obj["metadata"]
    if not namespaced(obj):
        metadata.pop("namespace", None)
    elif not metadata.get("namespace"):
        metadata["namespace"] = namespace
    phases, hook = _phases(obj)
    if not hook:
        if "annotation" in tracking:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), TRACKING: tracking_id(app, obj)}
        if "label" in tracking:
            metadata["labels"] = {**(metadata.get("labels") or {}), INSTANCE_LABEL: app}
    return Target(obj, key_of(obj), phases, wave_of(obj), hook)


def _phases(obj: Obj) -> tuple[tuple[str, ...], bool]:
    """The phases of an object, and whether it is a hook; no phases for what is never applied."""
    helm = listed(obj, HELM_HOOK)
    wanted: Iterable[str] = listed(obj, HOOK)
    if not wanted:
        if not helm or ("crd-install" in helm and obj["kind"] == "CustomResourceDefinition"):
            return ("Sync",), False
        wanted = {HELM_PHASES[part] for part in helm if part in HELM_PHASES}
    return tuple(phase for phase in (*PHASES, *DELETE_HOOKS) if phase in wanted), True
