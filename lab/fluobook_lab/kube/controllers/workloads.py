"""What the workload controllers share: making pods from a template, finding them again, and counting them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.events import record
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import clone, controller_of, is_true, name_of, namespace_of, owner_reference

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import KeysOf
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

RETRY_SECONDS = 5.0
"""World seconds after which a controller tries again to make a pod that was not admitted."""


def owner_key(kind: str) -> KeysOf:
    """A function from an object to the key of its controller of that kind."""

    def keys(obj: Obj) -> list[Key]:
        owner = controller_of(obj)
        return [(namespace_of(obj), owner["name"])] if owner and owner["kind"] == kind else []

    return keys


def owned(store: Store, owner: Obj, api_version: str, kind: str) -> list[Obj]:
    """The objects of a kind that `owner` controls; not to be changed."""
    found = store.view(api_version, kind, namespace_of(owner))
    uid = owner["metadata"]["uid"]
    return [obj for obj in found if (controller_of(obj) or {}).get("uid") == uid]


def living(pods: list[Obj]) -> list[Obj]:
    """Those that are not on their way out and have not failed."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and (pod.get("status") or {}).get("phase") != "Failed"
    ]


def ready(pods: list[Obj]) -> list[Obj]:
    """Those that are ready."""
    return [pod for pod in pods if is_true(pod, "Ready")]


def template_hash(template: Obj) -> str:
    """A short name for a pod template, the same for the same template."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    return digest[:10].translate(str.maketrans("01aeiou3", "bcdfghjk"))


def new_pod(owner: Obj, *, name: str = "", node: str = "", labels: dict[str, str] | None = None) -> Obj:
    """A pod of the owner's template; with a generated name unless one is given."""
    template = clone(owner["spec"]["template"])
    metadata = {
        key: value for key, value in (template.get("metadata") or {}).items() if key in ("labels", "annotations")
    }
    metadata["labels"] = {**(metadata.get("labels") or {}), **(labels or {})}
    metadata |= {"name": name} if name else {"generateName": f"{name_of(owner)}-"}
    metadata |= {"namespace": namespace_of(owner), "ownerReferences": [owner_reference(owner)]}
    spec = {**template["spec"], **({"nodeName": node} if node else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def create_pod(store: Store, owner: Obj, pod: Obj) -> str:
    """Create a pod; what stands against it if it is not admitted, "" if it was."""
    try:
        store.create(pod)
    except ApiError as error:
        what = f"Error creating: {error.message}"
        record(store, owner, "FailedCreate", what, source=f"{owner['kind'].lower()}-controller", warning=True)
        return error.message
    return ""


def delete_pods(store: Store, pods: list[Obj]) -> None:
    """Delete some pods."""
    for pod in pods:
        store.delete("v1", "Pod", name_of(pod), namespace_of(pod))
