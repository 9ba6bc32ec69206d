"""Argo CD's own names: kinds, annotations, field managers, and the key under which an object is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj

NAMESPACE = "argocd"
API = "argoproj.io/v1alpha1"
IN_CLUSTER = "https://kubernetes.default.svc"
CONTROLLER = "argocd-application-controller"
"""Field manager of what the controller writes into Applications."""
MANAGER = "argocd-controller"
"""Field manager of what it applies to the cluster."""

PREFIX = "argocd.argoproj.io/"
TRACKING = PREFIX + "tracking-id"
INSTANCE_LABEL = "app.kubernetes.io/instance"
WAVE = PREFIX + "sync-wave"
OPTIONS = PREFIX + "sync-options"
HOOK = PREFIX + "hook"
HOOK_DELETE = PREFIX + "hook-delete-policy"
REFRESH = PREFIX + "refresh"
COMPARE = PREFIX + "compare-options"
IGNORE_HEALTH = PREFIX + "ignore-healthcheck"
FINALIZER = "resources-finalizer.argocd.argoproj.io"


class Key(NamedTuple):
    """What an object is known by, whatever its version."""

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
    """An annotation's value, "" if it is not there."""
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def options_of(obj: Obj) -> frozenset[str]:
    """The sync options in an object's annotation: {"Prune=false", …}."""
    return frozenset(part.strip() for part in annotation(obj, OPTIONS).split(",") if part.strip())


def tracking_id(app: str, obj: Obj) -> str:
    """The annotation by which an object is known to belong to an Application."""
    key = key_of(obj)
    return f"{app}:{key.group}/{key.kind}:{key.namespace}/{key.name}"
