"""Plays the operators: they make workloads for their custom resources, and report on them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from fluobook.machine.pki import issue, new_authority
from fluobook_lab.kube.controllers.loop import draw
from fluobook_lab.kube.controllers.operated import NAME, OPERATED
from fluobook_lab.kube.objects import controller_of, is_true, labels_of, name_of, namespace_of, owner_reference

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.controllers.operated import Instances, Operated
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

DEPLOYMENTS = ("apps", "deployments")
THINK_SECONDS = (1.0, 4.0)


class Operators:
    """Plays all operators of the table.

    Args:
        store: the cluster.
        clock: the world clock.
        seed: makes delays the same in every run.
    """

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self._store = store
        self._clock = clock
        self._seed = seed
        self._due: dict[str, float] = {}
        self._kinds: dict[Key, tuple[str, str]] = {}
        self.sources: Sources = {DEPLOYMENTS: self._on_deployment, ("apps", "statefulsets"): self._on_instances}
        self.sources |= dict.fromkeys(OPERATED, self._keys)

    def _keys(self, obj: Obj) -> list[Key]:
        """The key names the kind too: "plural.group/namespace"."""
        resource = self._store.registry.find(obj["apiVersion"], obj["kind"])
        return [(f"{resource.qualified}/{namespace_of(obj)}", name_of(obj))] if resource else []

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        operator = labels_of(deployment).get(NAME)
        return [
            (f"{plural}.{group}/{key[0]}", key[1])
            for (group, plural), told in OPERATED.items()
            if told.operator == operator
            for key, _ in self._store.storage.scan((group, plural))
        ]

    def _on_instances(self, stateful_set: Obj) -> list[Key]:
        owner = controller_of(stateful_set)
        found = (
            self._store.find(owner["apiVersion"], owner["kind"], owner["name"], namespace_of(stateful_set))
            if owner
            else None
        )
        return self._keys(found) if found else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        where, _, namespace = key[0].partition("/")
        plural, _, group = where.partition(".")
        obj = self._find((group, plural), (namespace, key[1]))
        told = OPERATED[(group, plural)]
        if obj is None or obj["metadata"].get("deletionTimestamp") or not self._runs(told.operator):
            return None
        now = self._clock.now()
        due = self._due.setdefault(obj["metadata"]["uid"], now + draw(self._seed, f"operate/{key}", *THINK_SECONDS))
        if now < due:
            return due - now
        self._operate(obj, told)
        return None

    def _find(self, resource: Key, key: Key) -> Obj | None:
        found = self._store.storage.get(resource, key)
        return self._store.find(found["apiVersion"], found["kind"], key[1], key[0]) if found else None

    def _runs(self, operator: str) -> bool:
        deployments = self._store.view("apps/v1", "Deployment")
        return any(labels_of(one).get(NAME) == operator and is_true(one, "Available") for one in deployments)

    def _operate(self, obj: Obj, told: Operated) -> None:
        if obj["kind"] == "Certificate":
            self._issue(obj)
        ready = self._instances(obj, told.instances) if told.instances else 0
        for service in told.services:
            self._service(obj, told, service.format(name=name_of(obj)))
        status = {**(obj.get("status") or {}), **told.status(obj, ready)}
        self._store.set_status(obj, status)

    def _instances(self, obj: Obj, told: Instances) -> int:
        """Make the StatefulSet, or scale it; how many of its pods are ready."""
        name, count = told.name.format(name=name_of(obj)), told.count(obj)
        found = self._store.find("apps/v1", "StatefulSet", name, namespace_of(obj))
        if found is None:
            self._store.create(_stateful_set(obj, told, name, count))
            return 0
        if found["spec"]["replicas"] != count:
            body = {"spec": {"replicas": count}}
            self._store.patch("apps/v1", "StatefulSet", name, namespace_of(obj), body=body)
        return (found.get("status") or {}).get("readyReplicas", 0)

    def _service(self, obj: Obj, told: Operated, name: str) -> None:
        if told.instances is None or self._store.find("v1", "Service", name, namespace_of(obj)):
            return
        ports = [{"name": port, "port": number} for port, number in told.instances.ports.items()]
        metadata = {"name": name, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
        spec = {"selector": _labels(obj, told.instances), "ports": ports}
        self._store.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})

    def _issue(self, certificate: Obj) -> None:
        """The Secret that a Certificate asks for, with a key pair of an authority that nobody keeps."""
        spec, namespace = certificate["spec"], namespace_of(certificate)
        if self._store.find("v1", "Secret", spec["secretName"], namespace):
            return
        authority = new_authority(common_name="rehearsal")
        pair = issue(authority, common_name=spec.get("commonName", ""), dns=spec.get("dnsNames") or (), server=True)
        data = {"tls.crt": pair.crt, "tls.key": pair.key, "ca.crt": authority.crt}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        metadata = {"name": spec["secretName"], "namespace": namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
        self._store.create({**secret, "data": encoded})


def _labels(obj: Obj, told: Instances) -> dict[str, str]:
    return {key: value.format(name=name_of(obj)) for key, value in told.labels.items()}


def _stateful_set(obj: Obj, told: Instances, name: str, count: int) -> Obj:
    labels = _labels(obj, told)
    ports = [{"name": port, "containerPort": number} for port, number in told.ports.items()]
    image = obj["spec"].get("imageName") or obj["spec"].get("image")
    container = {"name": "main", "image": image if isinstance(image, str) else told.image, "ports": ports}
    spec: Obj = {"replicas": count, "serviceName": name, "selector": {"matchLabels": labels}}
    spec |= {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}
    if told.storage:
        storage_class, size = told.storage(obj)
        claim: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        claim |= {"storageClassName": storage_class} if storage_class else {}
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    metadata = {
        "name": name,
        "namespace": namespace_of(obj),
        "labels": labels,
        "ownerReferences": [owner_reference(obj)],
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}
