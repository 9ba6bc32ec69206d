"""The `status` of an Application, in the very shape that the real controller writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.names import NAMESPACE
from fluobook_lab.argocd.sources import sources_of
from fluobook_lab.argocd.tasks import PENDING, Task
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.argocd.comparison import Compared, Comparison
    from fluobook_lab.argocd.health.verdict import Health
    from fluobook_lab.argocd.sources import Rendered
    from fluobook_lab.kube.objects import Obj

HISTORY = 10
"""Deployments that are remembered."""


def conditions(old: Iterable[Mapping[str, Any]], now: Mapping[str, str]) -> list[Obj]:
    """The conditions by type; one that says the same as before keeps its time."""
    before = {one["type"]: one for one in old}
    made = []
    for kind, message in now.items():
        same = before.get(kind, {}).get("message") == message
        since = before[kind]["lastTransitionTime"] if same else timestamp()
        made.append({"type": kind, "message": message, "lastTransitionTime": since})
    return made


def compared(spec: dict[str, Any], rendered: Rendered | None, comparison: Comparison | None) -> Obj:
    """`status.sync`: Unknown where nothing could be compared."""
    to = {"destination": clone(spec.get("destination") or {})}
    several = bool(spec.get("sources"))
    to |= {"sources": clone(sources_of(spec))} if several else {"source": clone(spec.get("source") or {})}
    told: Obj = {"status": "Unknown", "comparedTo": to}
    if comparison is not None:
        told["status"] = "Synced" if comparison.synced else "OutOfSync"
    if rendered is not None:
        told |= {"revisions": list(rendered.revisions)} if several else {"revision": rendered.revisions[0]}
    return told


def health(old: Mapping[str, Any], now: Health) -> Obj:
    """`status.health`; its time changes with its status alone."""
    same = old.get("status") == now.status and "lastTransitionTime" in old
    return {"status": now.status, "lastTransitionTime": old["lastTransitionTime"] if same else timestamp()}


def resources(comparison: Comparison, *, with_health: bool) -> list[Obj]:
    """`status.resources`; Argo CD 3 leaves health out of it unless it is told to persist it."""
    return [_resource(item, with_health=with_health) for item in comparison.items]


def _resource(item: Compared, *, with_health: bool) -> Obj:
    key = item.key
    told: Obj = {"group": key.group} if key.group else {}
    told |= {"kind": key.kind, "name": key.name}
    told |= {"namespace": key.namespace} if key.namespace else {}
    told |= {"status": "OutOfSync" if item.out_of_sync else "Synced", "version": item.version}
    if item.target and item.target.wave:
        told["syncWave"] = item.target.wave
    if item.prunes:
        told["requiresPruning"] = True
    if with_health and item.health:
        told["health"] = {"status": item.health.status}
        told["health"] |= {"message": item.health.message} if item.health.message else {}
    return told


def operation_state(operation: Obj, tasks: Iterable[Task], rendered: Rendered, spec: dict[str, Any]) -> Obj:
    """`status.operationState` but for phase, message and times."""
    result: Obj = {"source": clone(spec["source"])} if spec.get("source") else {"sources": clone(sources_of(spec))}
    result |= {"revisions": list(rendered.revisions)} if spec.get("sources") else {"revision": rendered.revisions[0]}
    if listed := [_result(task) for task in tasks if task.state != PENDING]:
        result["resources"] = listed
    return {"operation": operation, "syncResult": result}


def _result(task: Task) -> Obj:
    obj = task.target.obj if task.target else task.doomed or {}
    version = obj.get("apiVersion", "").rpartition("/")[2]
    told: Obj = {"group": task.key.group, "version": version, "kind": task.key.kind}
    told |= {"namespace": task.key.namespace, "name": task.key.name, "syncPhase": task.phase, "message": task.message}
    told |= {"status": task.status} if task.status else {}
    if task.is_hook:
        told |= {"hookType": task.phase, "hookPhase": task.state}
    elif task.state:
        told["hookPhase"] = task.state
    return told


def history(old: list[Obj], operation: Mapping[str, Any], result: Mapping[str, Any]) -> list[Obj]:
    """`status.history` with one deployment more."""
    entry: Obj = {"id": old[-1]["id"] + 1 if old else 0, "deployedAt": timestamp()}
    entry["deployStartedAt"] = operation["startedAt"]
    entry |= {key: clone(result[key]) for key in ("revision", "revisions", "source", "sources") if key in result}
    entry["initiatedBy"] = clone(operation.get("operation", {}).get("initiatedBy") or {})
    return [*old, entry][-HISTORY:]


def summary(comparison: Comparison) -> Obj:
    """`status.summary`: the images that are live."""
    images: set[str] = set()
    for item in comparison.items:
        spec = ((item.live or {}).get("spec") or {}).get("template") or {}
        images |= {one["image"] for one in (spec.get("spec") or {}).get("containers") or () if one.get("image")}
    return {"images": sorted(images)} if images else {}


def whole(old: Mapping[str, Any], parts: Mapping[str, Any]) -> Obj:
    """The status with these parts; a part that is None goes."""
    merged = {**old, "controllerNamespace": NAMESPACE, "resourceHealthSource": "appTree", **parts}
    return {key: value for key, value in merged.items() if value is not None}
