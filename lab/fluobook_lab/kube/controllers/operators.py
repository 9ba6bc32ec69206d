"""What the platform's operators do: workloads, claims and status of their custom resources."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.machine.pki import issue, new_authority
from fluobook_lab.kube.controllers.loop import draw
from fluobook_lab.kube.objects import (
    controller_of,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


DEPLOYMENTS = ("apps", "deployments")
THINK_SECONDS = (1.0, 4.0)


class Operators:
    """Simulates all operators of the table.

    Args:
        store: the cluster.
        clock: the lab's clock.
        seed: makes delays the same in every run.
    """

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self._store = store
        self._clock = clock
        self._seed = seed
        self._due: dict[str, float] = {}
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
            for (group, plural), operated in OPERATED.items()
            if operated.operator == operator
            for key, _ in self._store.storage.scan((group, plural))
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
        where, _, namespace = key[0].partition("/")
        plural, _, group = where.partition(".")
        obj = self._find((group, plural), (namespace, key[1]))
        operated = OPERATED[(group, plural)]
        if obj is None or obj["metadata"].get("deletionTimestamp") or not self._runs(operated.operator):
            return None
        now = self._clock.now()
        due = self._due.setdefault(obj["metadata"]["uid"], now + draw(self._seed, f"operate/{key}", *THINK_SECONDS))
        if now < due:
            return due - now
        self._operate(obj, operated)
        return None

    def _find(self, resource: Key, key: Key) -> Obj | None:
        obj = self._store.storage.get(resource, key)
        return self._store.find(obj["apiVersion"], obj["kind"], key[1], key[0]) if obj else None

    def _runs(self, operator: str) -> bool:
        deployments = self._store.view("apps/v1", "Deployment")
        return any(labels_of(item).get(NAME) == operator and is_true(item, "Available") for item in deployments)

    def _operate(self, obj: Obj, operated: Operated) -> None:
        if obj["kind"] == "Certificate":
            self._issue(obj)
        ready = self._instances(obj, operated.instances) if operated.instances else 0
        for service in operated.services:
            self._service(obj, operated, service.format(name=name_of(obj)))
        status = {**(obj.get("status") or {}), **operated.status(obj, ready)}
        self._store.set_status(obj, status)

    def _instances(self, obj: Obj, instances: Instances) -> int:
        """Make the StatefulSet, or scale it; how many of its pods are ready."""
        name, count = instances.name.format(name=name_of(obj)), instances.count(obj)
        stateful_set = self._store.find("apps/v1", "StatefulSet", name, namespace_of(obj))
        if stateful_set is None:
            self._store.create(_stateful_set(obj, instances, name, count))
            return 0
        if stateful_set["spec"]["replicas"] != count:
            body = {"spec": {"replicas": count}}
            self._store.patch("apps/v1", "StatefulSet", name, namespace_of(obj), body=body)
        return (stateful_set.get("status") or {}).get("readyReplicas", 0)

    def _service(self, obj: Obj, operated: Operated, name: str) -> None:
        if operated.instances is None or self._store.find("v1", "Service", name, namespace_of(obj)):
            return
        ports = [{"name": port, "port": number} for port, number in operated.instances.ports.items()]
        metadata = {"name": name, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
        spec = {"selector": _labels(obj, operated.instances), "ports": ports}
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


def _labels(obj: Obj, instances: Instances) -> dict[str, str]:
    return {key: value.format(name=name_of(obj)) for key, value in instances.labels.items()}


def _stateful_set(obj: Obj, instances: Instances, name: str, count: int) -> Obj:
    labels = _labels(obj, instances)
    ports = [{"name": port, "containerPort": number} for port, number in instances.ports.items()]
    image = obj["spec"].get("imageName") or obj["spec"].get("image")
    container = {"name": "main", "image": image if isinstance(image, str) else instances.image, "ports": ports}
    spec: Obj = {"replicas": count, "serviceName": name, "selector": {"matchLabels": labels}}
    spec |= {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}
    if instances.storage:
        storage_class, size = instances.storage(obj)
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


NAME = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Instances:
    """The pods that an operator makes for one custom resource.

    Args:
        name: of the StatefulSet, with "{name}" for the resource's.
        count: how many, from the resource.
        image: what runs in them.
        labels: on the pods, with "{name}"; Services and network policies select by them.
        storage: class and size of a claim for each, from the resource; None for no claim.
        ports: names and numbers.
    """

    name: str
    count: Callable[[Obj], int]
    image: str
    labels: dict[str, str]
    storage: Callable[[Obj], tuple[str | None, str]] | None = None
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Operated:
    """One kind and its operator.

    Args:
        operator: label `app.kubernetes.io/name` of the operator's Deployment.
        status: what the operator reports of a resource, for the number of its instances that are ready.
        instances: what it makes; None for nothing.
        services: names of the Services it makes, with "{name}".
    """

    operator: str
    status: Callable[[Obj, int], Obj]
    instances: Instances | None = None
    services: tuple[str, ...] = ()


def _conditions(**wanted: str) -> Callable[[Obj, int], Obj]:
    """A status of conditions, such as Ready="True"."""

    def status(obj: Obj, ready: int) -> Obj:
        del ready
        conditions = (obj.get("status") or {}).get("conditions") or []
        for kind, value in wanted.items():
            conditions = with_condition(conditions, kind, value, kind, "")
        observed = obj["metadata"].get("generation", 1)
        return {"conditions": [{**c, "observedGeneration": observed} for c in conditions]}

    return status


def _postgres(obj: Obj, ready: int) -> Obj:
    wanted = obj["spec"].get("instances", 1)
    healthy = ready >= wanted
    phase = "Cluster in healthy state" if healthy else "Waiting for the instances to become active"
    conditions = _conditions(Ready="True" if healthy else "False")(obj, ready)["conditions"]
    primary = f"{name_of(obj)}-1"
    fields = {"instances": wanted, "readyInstances": ready, "phase": phase, "conditions": conditions}
    return {**fields, "currentPrimary": primary, "targetPrimary": primary, "writeService": f"{name_of(obj)}-rw"}


def _rabbit(obj: Obj, ready: int) -> Obj:
    up = "True" if ready >= obj["spec"].get("replicas", 1) else "False"
    status = _conditions(AllReplicasReady=up, ClusterAvailable=up, NoWarnings="True", ReconcileSuccess="True")(
        obj, ready
    )
    return {**status, "observedGeneration": obj["metadata"].get("generation", 1)}


def _scylla(obj: Obj, ready: int) -> Obj:
    wanted = _scylla_members(obj)
    up = ready >= wanted
    conditions = {"Available": "True" if up else "False", "Progressing": "False" if up else "True", "Degraded": "False"}
    racks = {
        rack["name"]: {"members": rack.get("members", 1), "readyMembers": min(ready, rack.get("members", 1))}
        for rack in obj["spec"]["datacenter"]["racks"]
    }
    status = {**_conditions(**conditions)(obj, ready), "observedGeneration": obj["metadata"].get("generation", 1)}
    return {**status, "members": wanted, "readyMembers": ready, "availableMembers": ready, "racks": racks}


def _scylla_members(obj: Obj) -> int:
    return sum(rack.get("members", 1) for rack in obj["spec"]["datacenter"]["racks"])


def _victoria(obj: Obj, ready: int) -> Obj:
    del ready
    return {"updateStatus": "operational", "observedGeneration": obj["metadata"].get("generation", 1)}


def _victoria_instances(kind: str, image: str, port: int) -> Instances:
    labels = {NAME: kind, "app.kubernetes.io/instance": "{name}", "app.kubernetes.io/component": "monitoring"}
    return Instances(
        f"{kind}-{{name}}", lambda obj: obj["spec"].get("replicaCount", 1), image, labels, None, {"http": port}
    )


def _storage(obj: Obj) -> tuple[str | None, str]:
    storage = obj["spec"].get("storage") or {}
    return storage.get("storageClass"), storage.get("size", "1Gi")


def _rabbit_storage(obj: Obj) -> tuple[str | None, str]:
    storage = obj["spec"].get("persistence") or {}
    return storage.get("storageClassName"), storage.get("storage", "10Gi")


def _scylla_storage(obj: Obj) -> tuple[str | None, str]:
    storage = obj["spec"]["datacenter"]["racks"][0].get("storage") or {}
    return storage.get("storageClassName"), storage.get("capacity", "10Gi")


_READY = _conditions(Ready="True")
_VM = "victoria-metrics-operator"
_VM_SETTINGS = ("vmnodescrapes", "vmpodscrapes", "vmprobes", "vmrules", "vmscrapeconfigs", "vmservicescrapes")
"""What the operator only reads; it reports on them too, and Argo CD 3.5 waits for that."""

OPERATED: dict[tuple[str, str], Operated] = {
    **{("operator.victoriametrics.com", kind): Operated(_VM, _victoria) for kind in _VM_SETTINGS},
    ("cert-manager.io", "certificates"): Operated("cert-manager", _READY),
    ("cert-manager.io", "clusterissuers"): Operated("cert-manager", _READY),
    ("cert-manager.io", "issuers"): Operated("cert-manager", _READY),
    ("operator.victoriametrics.com", "vmagents"): Operated(
        _VM, _victoria, _victoria_instances("vmagent", "victoriametrics/vmagent:v1.150.0", 8429), ("vmagent-{name}",)
    ),
    ("operator.victoriametrics.com", "vmalertmanagers"): Operated(
        _VM,
        _victoria,
        _victoria_instances("vmalertmanager", "prom/alertmanager:v0.31.0", 9093),
        ("vmalertmanager-{name}",),
    ),
    ("operator.victoriametrics.com", "vmalerts"): Operated(
        _VM, _victoria, _victoria_instances("vmalert", "victoriametrics/vmalert:v1.150.0", 8080), ("vmalert-{name}",)
    ),
    ("operator.victoriametrics.com", "vmsingles"): Operated(
        _VM,
        _victoria,
        _victoria_instances("vmsingle", "victoriametrics/victoria-metrics:v1.150.0", 8428),
        ("vmsingle-{name}",),
    ),
    ("postgresql.cnpg.io", "clusters"): Operated(
        "cloudnative-pg",
        _postgres,
        Instances(
            "{name}",
            lambda obj: obj["spec"].get("instances", 1),
            "ghcr.io/cloudnative-pg/postgresql:18",
            {"cnpg.io/cluster": "{name}", "cnpg.io/podRole": "instance", NAME: "postgresql"},
            _storage,
            {"postgresql": 5432, "metrics": 9187, "status": 8000},
        ),
        ("{name}-rw", "{name}-ro", "{name}-r"),
    ),
    ("rabbitmq.com", "rabbitmqclusters"): Operated(
        "rabbitmq-cluster-operator",
        _rabbit,
        Instances(
            "{name}-server",
            lambda obj: obj["spec"].get("replicas", 1),
            "rabbitmq:4.2.6-management",
            {NAME: "{name}", "app.kubernetes.io/component": "rabbitmq", "app.kubernetes.io/part-of": "rabbitmq"},
            _rabbit_storage,
            {"amqp": 5672, "mqtt": 1883, "prometheus": 15692, "management": 15672},
        ),
        ("{name}", "{name}-nodes"),
    ),
    ("scylla.scylladb.com", "scyllaclusters"): Operated(
        "scylla-operator",
        _scylla,
        Instances(
            "{name}-dc1-rack1",
            _scylla_members,
            "docker.io/scylladb/scylla:2026.1.3",
            {"scylla/cluster": "{name}", NAME: "scylla", "app": "scylla"},
            _scylla_storage,
            {"cql": 9042, "agent-api": 10001, "prometheus": 9180},
        ),
        ("{name}-client",),
    ),
}
