"""What the platform no longer has: Applications that are left out, and objects that Argo CD reports but does not prune.

Argo CD prunes nothing that holds data or brings kinds (`keeping` of `fluobook check`), so stage 8 deletes it, in the
order in which it can go: instances before their operators, namespaces last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fluobook.errors import KUBECTL, TaskFailed
from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.gitops.rules.applications import holds_data
from fluobook.gitops.tree import FINALIZER
from fluobook.stages.core import readiness
from fluobook.stages.core.plan import Action
from fluobook.stages.core.ssa import TRACKING
from fluobook.stages.root_application.state import API, KIND, Tip, api_version_of, state_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.gitops import Tree
    from fluobook.stages.core.executor import Reporter

    Obj = dict[str, Any]

_OBJECTS, _NAMESPACES = -100, -101
"""Their places in the order of deletion, after the waves of Applications."""


@dataclass(frozen=True)
class Leftover:
    """An object that the platform no longer has.

    Args:
        api_version: of its kind.
        kind: its kind.
        name: its name.
        namespace: its namespace.
        owner: the Application that deployed it.
        place: in the order of deletion; the highest goes first.
        data: what is destroyed with it, "" if nothing.
    """

    api_version: str
    kind: str
    name: str
    namespace: str
    owner: str
    place: int
    data: str = ""

    def __str__(self) -> str:
        """Kind and name, as an action names them."""
        return f"{self.kind.lower()} {self.namespace + '/' if self.namespace and self.kind != KIND else ''}{self.name}"


def leftovers_of(
    kube: Kube, tree: Tree, objects: Mapping[str, Obj], behind: Container[str] = ()
) -> tuple[Leftover, ...]:
    """Everything that is left, in the order in which it is to be deleted.

    Args:
        kube: the cluster.
        tree: the platform's, as it is wanted.
        objects: the live Applications by name.
        behind: the names of those that Argo CD compared with an older commit: what they report may be wrong.
    """
    wanted = {(API, KIND, app.name, NAMESPACE) for app in tree.applications}
    keys = {(API, KIND, app.name, NAMESPACE): ROOT for app in tree.left_out if _is_child(objects.get(app.name))}
    for name in {ROOT, *(app.name for app in tree.applications)} & set(objects):
        state = state_of(objects[name])
        if state.operation != "Running" and state.up_to_date and name not in behind:
            keys |= dict.fromkeys((key for key in _given_up(objects[name]) if key not in wanted), name)
    for namespace in kube.list("v1", "Namespace") if tree.dropped_namespaces else ():
        tracking, name = _annotations(namespace).get(TRACKING, ""), namespace["metadata"]["name"]
        if tracking and name in tree.dropped_namespaces:
            keys["v1", "Namespace", name, ""] = tracking.partition(":")[0]
    leftovers = [_leftover(kube, key, owner, objects) for key, owner in keys.items()]
    return tuple(sorted((item for item in leftovers if item), key=lambda item: (-item.place, item.kind, item.name)))


def _annotations(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def _is_child(obj: Obj | None) -> bool:
    return obj is not None and _annotations(obj).get(TRACKING, "").startswith(f"{ROOT}:")


def _given_up(obj: Obj) -> Iterator[tuple[str, str, str, str]]:
    """What an Application no longer has, and Argo CD would prune if it were allowed to."""
    for entry in (obj.get("status") or {}).get("resources") or ():
        if entry.get("requiresPruning") and entry.get("status") == "OutOfSync":
            yield api_version_of(entry), entry["kind"], entry["name"], entry.get("namespace", "")


def _leftover(kube: Kube, key: tuple[str, str, str, str], owner: str, apps: Mapping[str, Obj]) -> Leftover | None:
    live = kube.find(*key)
    if live is None:
        return None
    place = _NAMESPACES if key[1] == "Namespace" else _OBJECTS
    if key[:2] == (API, KIND):
        live = apps.get(key[2], live)
        place = state_of(live).wave
    return Leftover(*key, owner, place, _data_of(kube, live))


def _data_of(kube: Kube, obj: Obj) -> str:
    """What is destroyed with an object, such as "ScyllaCluster scylla/fluodata"; "" if nothing."""
    kind = obj["kind"]
    held: list[str] = []
    if kind == KIND:
        for entry in (obj.get("status") or {}).get("resources") or ():
            if entry["kind"] in ("CustomResourceDefinition", "Namespace"):
                continue  # Argo CD deletes no kinds; namespaces of the tree forbid it
            live = kube.find(api_version_of(entry), entry["kind"], entry["name"], entry.get("namespace", ""))
            if live and holds_data(live):
                held.append(f"{entry['kind']} {entry.get('namespace', '')}/{entry['name']}")
    elif kind == "Namespace":
        held = [
            f"claim {claim['metadata']['name']}"
            for claim in kube.list("v1", "PersistentVolumeClaim", obj["metadata"]["name"])
        ]
        held = held or ["everything in it"]
    elif kind == "CustomResourceDefinition":
        held = [f"every {obj['spec']['names']['kind']}"]
    elif holds_data(obj):
        held = ["its data"]
    return ", ".join(held)


def deletions(leftovers: Iterable[Leftover], needs: tuple[str, ...]) -> list[Action]:
    """The actions that delete what is left, each place after the one before."""
    actions: list[Action] = []
    for _, group in groupby(leftovers, key=lambda item: item.place):
        deleted = [
            Action(
                f"delete {item}",
                "delete",
                str(item),
                f"with {item.data}" if item.data else f"deployed by {item.owner}",
                "the tree no longer has it",
                needs,
                "kubernetes",
                {
                    "key": [item.api_version, item.kind, item.name, item.namespace],
                    "owner": item.owner,
                    "with": item.data,
                },
                (item.name,) if item.data or item.kind == KIND else (),
            )
            for item in group
        ]
        actions += deleted
        needs = tuple(action.id for action in deleted)
    return actions


def delete(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Delete an object, an Application with all its objects, and wait until it is gone.

    Before that its Application must have given it up: Argo CD would create it again. A hook that fails may be the error
    of an earlier deletion; Argo CD tries again.

    Raises:
        TaskFailed: a hook of the Application forbids it.
        DeadlineExceeded: it is still there.
    """
    kube, key, owner = context.kube(), tuple(action.data["key"]), action.data["owner"]
    report.release_slot()
    tip = context.shared(Tip, lambda: Tip(context.platform))

    def is_given_up() -> bool | None:
        report.check()
        app = kube.find(API, KIND, owner, NAMESPACE)
        if app is not None and kube.find(*key) is not None:
            return True if key in _given_up(app) and tip.reached(state_of(app), refresh=True) else None
        return True

    context.wait_until("applications", f"Application {owner} no longer to contain {action.object}", is_given_up)
    live, is_application = kube.find(*key), key[:2] == (API, KIND)
    if live and is_application and not live["metadata"].get("deletionTimestamp"):
        finalizers = live["metadata"].get("finalizers") or []
        options = (live["spec"].get("syncPolicy") or {}).get("syncOptions") or ()
        kept = [option for option in options if not option.startswith("Delete=")]
        body = {"metadata": {"finalizers": [*finalizers, FINALIZER]}, "spec": {"syncPolicy": {"syncOptions": kept}}}
        kube.patch(*key, body=body)
    kube.delete(*key)
    deleted = time.monotonic()

    def is_gone() -> bool | None:
        report.check()
        obj = kube.find(*key)
        conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
        for condition in conditions if is_application else ():
            if condition["type"] == "DeletionError" and time.monotonic() - deleted >= readiness.DOUBT:
                raise TaskFailed(
                    f"{action.object} cannot be deleted: {condition['message']}",
                    system="argocd",
                    code="DeletionError",
                    remedy=f"{KUBECTL} -n {NAMESPACE} describe application {key[2]}",
                )
        return True if obj is None else None

    context.wait_until("applications", f"{action.object} to be deleted", is_gone, final=(TaskFailed,))
    return {"deleted": action.object}
