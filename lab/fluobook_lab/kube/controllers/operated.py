"""Which custom resources have an operator: what it makes of them, and the status it reports once that runs.

Argo CD's health checks and the runbooks read exactly these fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.kube.objects import name_of, with_condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj

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
    told = {"instances": wanted, "readyInstances": ready, "phase": phase, "conditions": conditions}
    return {**told, "currentPrimary": primary, "targetPrimary": primary, "writeService": f"{name_of(obj)}-rw"}


def _rabbit(obj: Obj, ready: int) -> Obj:
    up = "True" if ready >= obj["spec"].get("replicas", 1) else "False"
    status = _conditions(AllReplicasReady=up, ClusterAvailable=up, NoWarnings="True", ReconcileSuccess="True")(
        obj, ready
    )
    return {**status, "observedGeneration": obj["metadata"].get("generation", 1)}


def _scylla(obj: Obj, ready: int) -> Obj:
    wanted = _scylla_members(obj)
    up = ready >= wanted
    told = {"Available": "True" if up else "False", "Progressing": "False" if up else "True", "Degraded": "False"}
    racks = {
        rack["name"]: {"members": rack.get("members", 1), "readyMembers": min(ready, rack.get("members", 1))}
        for rack in obj["spec"]["datacenter"]["racks"]
    }
    status = {**_conditions(**told)(obj, ready), "observedGeneration": obj["metadata"].get("generation", 1)}
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
    told = obj["spec"].get("storage") or {}
    return told.get("storageClass"), told.get("size", "1Gi")


def _rabbit_storage(obj: Obj) -> tuple[str | None, str]:
    told = obj["spec"].get("persistence") or {}
    return told.get("storageClassName"), told.get("storage", "10Gi")


def _scylla_storage(obj: Obj) -> tuple[str | None, str]:
    told = obj["spec"]["datacenter"]["racks"][0].get("storage") or {}
    return told.get("storageClassName"), told.get("capacity", "10Gi")


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
