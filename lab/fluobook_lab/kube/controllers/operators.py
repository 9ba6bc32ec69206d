"""What the platform's operators do: workloads, claims and status of their custom resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.controllers.backups import AGAIN, bootstrap_problem
from fluobook_lab.kube.controllers.created import PLACEHOLDER
from fluobook_lab.kube.controllers.loop import Delays, running
from fluobook_lab.kube.objects import (
    clone,
    controller_of,
    data_file,
    is_true,
    json_path,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self.sources: Sources = dict.fromkeys((("apps", "statefulsets"), ("", "pods")), self._on_instance)
        self.sources[DEPLOYMENTS] = lambda obj: [*self._on_operator(obj), *self._on_instance(obj)]
        self.sources |= {_store_key(kind): self._keys for kind in OPERATED}
        self.sources["", "nodes"] = lambda _: self._led()

    def _keys(self, obj: Obj) -> list[Key]:
        """The key names the kind too: "plural.group/namespace"."""
        resource = self._store.registry.find(obj["apiVersion"], obj["kind"])
        return [(f"{resource.qualified}/{namespace_of(obj)}", name_of(obj))] if resource else []

    def _on_operator(self, deployment: Obj) -> list[Key]:
        operator = labels_of(deployment).get(NAME)
        return [
            (f"{kind}/{key[0]}", key[1])
            for kind, operated in OPERATED.items()
            if operated["operator"] == operator
            for key, _ in self._store.storage.scan(_store_key(kind))
        ]

    def _led(self) -> list[Key]:
        """What has a leading pod, which a cordoned node concerns."""
        led = [kind for kind, operated in OPERATED.items() if operated.get("instances", {}).get("primary")]
        return [(f"{kind}/{key[0]}", key[1]) for kind in led for key, _ in self._store.storage.scan(_store_key(kind))]

    def _on_instance(self, obj: Obj) -> list[Key]:
        owner = controller_of(obj)
        resource = self._store.registry.find(owner["apiVersion"], owner["kind"]) if owner else None
        if owner is None or resource is None or resource.qualified not in OPERATED:
            return []
        return [(f"{resource.qualified}/{namespace_of(obj)}", owner["name"])]

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
        if why := bootstrap_problem(self._store, obj):
            status = {"phase": "Setting up primary", "phaseReason": why}
            self._store.set_status(obj, {**(obj.get("status") or {}), **status})
            return AGAIN
        self._operate(obj, operated)
        return None

    def _find(self, resource: Key, key: Key) -> Obj | None:
        obj = self._store.storage.get(resource, key)
        return self._store.find(obj["apiVersion"], obj["kind"], key[1], key[0]) if obj else None

    def _operate(self, obj: Obj, operated: Obj) -> None:
        wanted = ready = 0
        if instances := operated.get("instances"):
            parts = _parts(obj, instances.get("each", ()))
            for part in parts:
                count = sum(1 if given is None else given for given in _values(part, instances["count"]))
                wanted += count
                ready += self._instances(part, instances, count)
            for name, budget in instances.get("budgets", {}).items():
                self._budget(obj, name.format(name=name_of(obj)), budget)
            if primary := instances.get("primary"):
                self._lead(obj, instances, primary)
            for secret, keys in instances.get("secrets", {}).items():
                self._secret(obj, secret.format(name=name_of(obj)), keys)
            common = set.intersection(*({*_labels(part, instances).items()} for part in parts)) if parts else set()
            for service in instances["services"]:
                self._service(obj, instances, service.format(name=name_of(obj)), dict(sorted(common)))
        self._store.set_status(obj, {**(obj.get("status") or {}), **_status(obj, operated, ready, wanted)})

    def _instances(self, obj: Obj, instances: Obj, count: int) -> int:
        """Make the workload, or scale it; how many of its pods are ready."""
        kind, name, namespace = instances["kind"], _text(obj, instances, instances["name"]), namespace_of(obj)
        if kind == "Pod":
            return sum(self._pod(obj, instances, f"{name}-{number + 1}") for number in range(count))
        workload = self._store.find("apps/v1", kind, name, namespace)
        if workload is None:
            template = _pod_template(obj, instances)
            if kind == "Deployment":
                template["spec"]["volumes"] = self._claims(obj, instances, name)
            self._store.create(_workload(obj, instances, name, count, template))
            return 0
        if workload["spec"]["replicas"] != count:
            self._store.patch("apps/v1", kind, name, namespace, body={"spec": {"replicas": count}})
        return (workload.get("status") or {}).get("readyReplicas", 0)

    def _pod(self, obj: Obj, instances: Obj, name: str) -> bool:
        """Make a pod without a workload; whether it is ready."""
        pod = self._store.find("v1", "Pod", name, namespace_of(obj))
        if pod is None:
            made = _pod_template(obj, instances, name)
            made["metadata"] |= {
                "name": name,
                "namespace": namespace_of(obj),
                "ownerReferences": [owner_reference(obj)],
            }
            made["spec"]["volumes"] = self._claims(obj, instances, name)
            self._store.create({"apiVersion": "v1", "kind": "Pod", **made})
        return pod is not None and is_true(pod, "Ready")

    def _claims(self, obj: Obj, instances: Obj, name: str) -> list[Obj]:
        """Make the claims of a pod or Deployment; its volumes."""
        volumes = []
        for claim in _wanted_claims(obj, instances):
            metadata = claim["metadata"]
            title, full = metadata["name"], metadata["name"].replace("*", name)
            if self._store.find("v1", "PersistentVolumeClaim", full, namespace_of(obj)) is None:
                metadata = {"name": full, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
                metadata["labels"] = _labels(obj, instances)
                spec = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
                self._store.create({**spec, "spec": claim["spec"]})
            volume = title.replace("*", "data")
            volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": full}})
        return volumes

    def _lead(self, obj: Obj, instances: Obj, primary: Obj) -> None:
        """Label the leading pod: the present one, else the first ready one, whose node is not cordoned."""
        count = sum(1 if given is None else given for given in _values(obj, instances["count"]))
        names = [f"{_text(obj, instances, instances['name'])}-{number + 1}" for number in range(count)]
        pods = [pod for name in names if (pod := self._store.find("v1", "Pod", name, namespace_of(obj)))]
        label, (leading, other) = primary["label"], primary["values"]
        able = [pod for pod in pods if is_true(pod, "Ready") and not self._is_cordoned(pod)]
        now = [pod for pod in pods if labels_of(pod).get(label) == leading]
        chosen = next((pod for pod in able if pod in now), next(iter(able or now or pods), None))
        for pod in pods:
            role = leading if pod is chosen else other
            if labels_of(pod).get(label) != role:
                body = {"metadata": {"labels": {label: role}}}
                self._store.patch("v1", "Pod", name_of(pod), namespace_of(pod), body=body)

    def _is_cordoned(self, pod: Obj) -> bool:
        node = self._store.find("v1", "Node", pod["spec"].get("nodeName", ""))
        return node is None or bool((node.get("spec") or {}).get("unschedulable"))

    def _budget(self, obj: Obj, name: str, budget: Obj) -> None:
        """Make a disruption budget, or remove it if the resource switches it off."""
        namespace = namespace_of(obj)
        present = self._store.find("policy/v1", "PodDisruptionBudget", name, namespace)
        if "switch" in budget and json_path(obj, budget["switch"]) is False:
            if present:
                self._store.delete("policy/v1", "PodDisruptionBudget", name, namespace)
            return
        if present is None:
            labels = {key: value.format(name=name_of(obj)) for key, value in budget["labels"].items()}
            metadata = {"name": name, "namespace": namespace, "ownerReferences": [owner_reference(obj)]}
            spec = {**budget["spec"], "selector": {"matchLabels": labels}}
            made = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}
            self._store.create(made)

    def _secret(self, obj: Obj, name: str, keys: Sequence[str]) -> None:
        if self._store.find("v1", "Secret", name, namespace_of(obj)):
            return
        metadata = {"name": name, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
        data = dict.fromkeys(keys, PLACEHOLDER)
        self._store.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data})

    def _service(self, obj: Obj, instances: Obj, name: str, selector: dict[str, str]) -> None:
        if self._store.find("v1", "Service", name, namespace_of(obj)):
            return
        ports = [{"name": port, "port": number} for port, number in instances["ports"].items()]
        metadata = {"name": name, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
        spec = {"selector": selector, "ports": ports}
        self._store.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def _store_key(kind: str) -> Key:
    plural, _, group = kind.partition(".")
    return (group, plural)


def _parts(obj: Obj, path: Sequence[str]) -> list[Obj]:
    """A copy of a resource for each element of a list in it, with that element alone; without a path, the resource."""
    if not path:
        return [obj]
    parts = []
    for element in _values(obj, [*path, "*"]):
        part = clone(obj)
        holder = _values(part, [*path[:-1]])[0]
        holder[path[-1]] = [element]
        parts.append(part)
    return parts


def _labels(obj: Obj, instances: Obj, instance: str = "") -> dict[str, str]:
    return {key: _text(obj, instances, value, instance) for key, value in instances["labels"].items()}


def _text(obj: Obj, instances: Obj, template: str, instance: str = "") -> str:
    values = {key: json_path(obj, path) for key, path in instances.get("values", {}).items()}
    return template.format(name=name_of(obj), instance=instance, **values)


def _workload(obj: Obj, instances: Obj, name: str, count: int, template: Obj) -> Obj:
    labels = _labels(obj, instances)
    spec: Obj = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
    if instances["kind"] == "StatefulSet":
        spec |= {"serviceName": name, "volumeClaimTemplates": _wanted_claims(obj, instances)}
    metadata: Obj = {"name": name, "namespace": namespace_of(obj), "labels": labels}
    metadata["ownerReferences"] = [owner_reference(obj)]
    return {"apiVersion": "apps/v1", "kind": instances["kind"], "metadata": metadata, "spec": spec}


def _pod_template(obj: Obj, instances: Obj, instance: str = "") -> Obj:
    ports = [{"name": port, "containerPort": number} for port, number in instances["ports"].items()]
    image = obj["spec"].get("imageName") or obj["spec"].get("image")
    container = {"name": instances["container"], "image": image if isinstance(image, str) else instances["image"]}
    own = {key: _text(obj, instances, value, instance) for key, value in instances.get("own_labels", {}).items()}
    labels = _labels(obj, instances) | own
    return {"metadata": {"labels": labels}, "spec": {"containers": [{**container, "ports": ports}]}}


def _wanted_claims(obj: Obj, instances: Obj) -> list[Obj]:
    """The claims that a resource asks for: name and spec; those whose `when` is absent are not wanted."""
    claims = []
    for title, storage in instances.get("claims", {}).items():
        if "when" in storage and not json_path(obj, storage["when"]):
            continue
        size = json_path(obj, storage["size"]) or storage.get("default")
        spec: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        if storage_class := json_path(obj, storage["class"]):
            spec["storageClassName"] = storage_class
        claims.append({"metadata": {"name": title.format(name=name_of(obj))}, "spec": spec})
    return claims


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
