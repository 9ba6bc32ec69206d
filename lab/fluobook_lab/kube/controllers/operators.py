"""What the platform's operators do: workloads, claims and status of their custom resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.controllers.loop import Delays, running
from fluobook_lab.kube.objects import (
    controller_of,
    data_file,
    json_path,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    with_condition,
)

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


NAME = "app.kubernetes.io/name"
DEPLOYMENTS = ("apps", "deployments")
OPERATED: dict[str, Obj] = {
    kind: operated for kind, operated in data_file("controllers/operators.yaml").items() if not kind.startswith("_")
}
THINK_SECONDS = (1.0, 4.0)


class Operators:
    """Simulates all operators of operators.yaml.

    Args:
        store: the cluster.
        clock: the lab's clock.
        seed: makes delays the same in every run.
    """

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self._store = store
        self._delays = Delays(clock, seed)
        self.sources: Sources = {DEPLOYMENTS: self._on_deployment, ("apps", "statefulsets"): self._on_instances}
        self.sources |= {_store_key(kind): self._keys for kind in OPERATED}

    def _keys(self, obj: Obj) -> list[Key]:
        """The key names the kind too: "plural.group/namespace"."""
        resource = self._store.registry.find(obj["apiVersion"], obj["kind"])
        return [(f"{resource.qualified}/{namespace_of(obj)}", name_of(obj))] if resource else []

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        operator = labels_of(deployment).get(NAME)
        return [
            (f"{kind}/{key[0]}", key[1])
            for kind, operated in OPERATED.items()
            if operated["operator"] == operator
            for key, _ in self._store.storage.scan(_store_key(kind))
        ]

    def _on_instances(self, stateful_set: Obj) -> list[Key]:
        owner = controller_of(stateful_set)
        objs = (
            self._store.find(owner["apiVersion"], owner["kind"], owner["name"], namespace_of(stateful_set))
            if owner
            else None
        )
        return self._keys(objs) if objs else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        kind, _, namespace = key[0].partition("/")
        obj = self._find(_store_key(kind), (namespace, key[1]))
        operated = OPERATED[kind]
        if obj is None or obj["metadata"].get("deletionTimestamp") or not running(self._store, operated["operator"]):
            return None
        left = self._delays.left(obj["metadata"]["uid"], f"operate/{key}", THINK_SECONDS)
        if left > 0:
            return left
        self._operate(obj, operated)
        return None

    def _find(self, resource: Key, key: Key) -> Obj | None:
        obj = self._store.storage.get(resource, key)
        return self._store.find(obj["apiVersion"], obj["kind"], key[1], key[0]) if obj else None

    def _operate(self, obj: Obj, operated: Obj) -> None:
        wanted = ready = 0
        if instances := operated.get("instances"):
            wanted = sum(1 if count is None else count for count in _values(obj, instances["count"]))
            ready = self._instances(obj, instances, wanted)
            for service in instances["services"]:
                self._service(obj, instances, service.format(name=name_of(obj)))
        self._store.set_status(obj, {**(obj.get("status") or {}), **_status(obj, operated, ready, wanted)})

    def _instances(self, obj: Obj, instances: Obj, count: int) -> int:
        """Make the StatefulSet, or scale it; how many of its pods are ready."""
        name = instances["name"].format(name=name_of(obj))
        stateful_set = self._store.find("apps/v1", "StatefulSet", name, namespace_of(obj))
        if stateful_set is None:
            self._store.create(_stateful_set(obj, instances, name, count))
            return 0
        if stateful_set["spec"]["replicas"] != count:
            body = {"spec": {"replicas": count}}
            self._store.patch("apps/v1", "StatefulSet", name, namespace_of(obj), body=body)
        return (stateful_set.get("status") or {}).get("readyReplicas", 0)

    def _service(self, obj: Obj, instances: Obj, name: str) -> None:
        if self._store.find("v1", "Service", name, namespace_of(obj)):
            return
        ports = [{"name": port, "port": number} for port, number in instances["ports"].items()]
        metadata = {"name": name, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
        spec = {"selector": _labels(obj, instances), "ports": ports}
        self._store.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def _store_key(kind: str) -> Key:
    plural, _, group = kind.partition(".")
    return (group, plural)


def _labels(obj: Obj, instances: Obj) -> dict[str, str]:
    return {key: value.format(name=name_of(obj)) for key, value in instances["labels"].items()}


def _stateful_set(obj: Obj, instances: Obj, name: str, count: int) -> Obj:
    labels = _labels(obj, instances)
    ports = [{"name": port, "containerPort": number} for port, number in instances["ports"].items()]
    image = obj["spec"].get("imageName") or obj["spec"].get("image")
    container = {"name": "main", "image": image if isinstance(image, str) else instances["image"], "ports": ports}
    spec: Obj = {"replicas": count, "serviceName": name, "selector": {"matchLabels": labels}}
    spec |= {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}
    if storage := instances.get("storage"):
        size = json_path(obj, storage["size"]) or storage["default"]
        claim: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        if storage_class := json_path(obj, storage["class"]):
            claim["storageClassName"] = storage_class
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    metadata: Obj = {"name": name, "namespace": namespace_of(obj), "labels": labels}
    metadata["ownerReferences"] = [owner_reference(obj)]
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def _values(value: Any, path: list[str]) -> list[Any]:
    """The values at a path; "*" stands for every item of a list."""
    if not path:
        return [value]
    if path[0] == "*":
        return [leaf for item in value or [] for leaf in _values(item, path[1:])]
    return _values((value or {}).get(path[0]), path[1:])


def _status(obj: Obj, operated: Obj, ready: int, wanted: int) -> Obj:
    """What the operator reports of a resource."""
    is_up = ready >= wanted
    generation = obj["metadata"].get("generation", 1)
    numbers = {"{ready}": ready, "{wanted}": wanted, "{generation}": generation}
    status: Obj = {}
    for field, value in operated.get("status", {}).items():
        text = value[0 if is_up else 1] if isinstance(value, list) else value
        status[field] = numbers[text] if text in numbers else text.format(name=name_of(obj))
    if conditions := operated.get("conditions"):
        reported = (obj.get("status") or {}).get("conditions") or []
        for kind, value in conditions.items():
            reported = with_condition(
                reported, kind, {"up": str(is_up), "down": str(not is_up)}.get(value, value), kind
            )
        status["conditions"] = [{**condition, "observedGeneration": generation} for condition in reported]
    return status
