"""What hangs under an object beside its status: scale, logs, eviction, tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import timestamp

if TYPE_CHECKING:
    from fluobook_lab.kube.identity import Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


def scale_of(obj: Obj, *, custom: bool = False) -> Obj:
    """The `Scale` of a workload.

    Raises:
        ApiError: 500, a custom resource does not say how many it wants.
    """
    if custom and "replicas" not in (obj.get("spec") or {}):
        why = 'the spec replicas field ".spec.replicas" does not exist'
        raise ApiError(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})
    metadata = {
        key: obj["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0)} | ({"selector": selector} if selector else {})
    replicas = obj["spec"].get("replicas", 1)
    spec = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def scaled(store: Store, resource: Resource, key: Key, scale: Obj, write: Write) -> Obj:
    """Set a workload's replicas.

    Raises:
        ApiError: 404, 409.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        what = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = {"reason": "FieldValueInvalid", "message": what, "field": "spec.replicas"}
        details = {"name": key[1], "group": "autoscaling", "kind": "Scale", "causes": [cause]}
        raise ApiError(422, "Invalid", f'Scale.autoscaling "{key[1]}" is invalid: spec.replicas: {what}', details)
    body: Obj = {"spec": {"replicas": replicas}}
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        body["metadata"] = {"resourceVersion": version}
    changed = store.change(resource, key, body, "application/merge-patch+json", replace(write, through="scale"))
    return scale_of(changed, custom=resource.custom)


def log_text(pod: Obj, container: str) -> str:
    """What a container "logged": that it runs, and since when.

    Raises:
        ApiError: 400, it has not started; 404, it has no such container.
    """
    names = [c["name"] for c in pod["spec"]["containers"]]
    chosen = container or names[0]
    if chosen not in names:
        raise ApiError(400, "BadRequest", f"container {chosen} is not valid for pod {pod['metadata']['name']}")
    if (pod.get("status") or {}).get("phase") not in ("Running", "Succeeded", "Failed"):
        waiting = f'container "{chosen}" in pod "{pod["metadata"]["name"]}" is waiting to start: ContainerCreating'
        raise ApiError(400, "BadRequest", waiting)
    return f"{pod['status'].get('startTime') or timestamp()} {chosen} started (rehearsal: nothing really runs here)\n"


def evicted(store: Store, resource: Resource, key: Key, eviction: Obj, write: Write) -> Obj:
    """Delete a pod on behalf of `kubectl drain`; disruption budgets are not looked at.

    Raises:
        ApiError: 404.
    """
    store.remove(resource, key, eviction.get("deleteOptions") or {}, write)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def bound(store: Store, resource: Resource, key: Key, binding: Obj, write: Write) -> Obj:
    """Put a pod on a node.

    Raises:
        ApiError: 404.
    """
    if node := store.read(resource, key)["spec"].get("nodeName"):
        why = f'pod {key[1]} is already assigned to node "{node}"'
        words = f'Operation cannot be fulfilled on pods/binding "{key[1]}": {why}'
        raise ApiError(409, "Conflict", words, {"name": key[1], "kind": "pods/binding"})
    body = {"spec": {"nodeName": binding["target"]["name"]}}
    store.change(resource, key, body, "application/merge-patch+json", write)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
