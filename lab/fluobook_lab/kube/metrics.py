"""What metrics-server serves: usage of nodes and pods, once its APIService is there and one of its pods is ready.

No container runs in the lab, so a pod uses what it requests, and a container without requests a fixed amount.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from fluobook.kubernetes.quantities import amount
from fluobook.kubernetes.selectors import matches
from fluobook_lab.kube import discovery
from fluobook_lab.kube.errors import no_such_path, not_found
from fluobook_lab.kube.objects import is_true, labels_of, name_of, namespace_of, timestamp, with_condition
from fluobook_lab.kube.resources import custom_resources
from fluobook_lab.kube.selectors import selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API_SERVICES: Key = ("apiregistration.k8s.io", "apiservices")
GROUP, VERSION = "metrics.k8s.io", "v1beta1"
KINDS = {"nodes": ("NodeMetrics", "Cluster"), "pods": ("PodMetrics", "Namespaced")}
WINDOW = "15s"
IDLE = {"cpu": Decimal("0.001"), "memory": Decimal(16 << 20)}
"""Cores and bytes of a container without requests."""
SYSTEM = {"cpu": Decimal("0.1"), "memory": Decimal(512 << 20)}
"""Cores and bytes that a node uses beside its pods."""


class ApiServices:
    """Marks an APIService available while a pod of its Service is ready, and then serves metrics.k8s.io."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {
            API_SERVICES: lambda obj: [("", name_of(obj))],
            ("", "pods"): self._touched,
            ("", "services"): self._touched,
        }

    def _touched(self, obj: Obj) -> list[Key]:
        namespace = namespace_of(obj)
        services = self._store.storage.scan(API_SERVICES)
        return [key for key, api_service in services if (service_of(api_service) or {}).get("namespace") == namespace]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        api_service = self._store.find("apiregistration.k8s.io/v1", "APIService", key[1])
        service = service_of(api_service) if api_service else None
        if api_service and not service:
            return None
        available = service is not None and is_ready(self._store, service)
        if key[1] == f"{VERSION}.{GROUP}":
            serve(self._store, available=available)
        if api_service:
            verdict = ("True", "Passed") if available else ("False", "MissingEndpoints")
            conditions = (api_service.get("status") or {}).get("conditions") or []
            self._store.set_status(api_service, {"conditions": with_condition(conditions, "Available", *verdict)})
        return None


def service_of(api_service: Obj) -> Obj | None:
    """The reference to the Service of an APIService; None where the API server serves it itself."""
    return api_service["spec"].get("service")


def is_ready(store: Store, service: Obj) -> bool:
    """Whether a pod of a Service, named by a reference to it, is ready."""
    live = store.find("v1", "Service", service["name"], service["namespace"])
    labels = {"matchLabels": ((live or {}).get("spec") or {}).get("selector") or {}}
    pods = store.view("v1", "Pod", service["namespace"])
    return live is not None and any(matches(labels, labels_of(pod)) and is_true(pod, "Ready") for pod in pods)


def serve(store: Store, *, available: bool) -> None:
    """Serve metrics.k8s.io, or stop to."""
    if (store.registry.find(f"{GROUP}/{VERSION}", "NodeMetrics") is not None) == available:
        return
    for plural, (kind, scope) in KINDS.items():
        names = {"plural": plural, "singular": plural[:-1], "kind": kind}
        spec = {"group": GROUP, "names": names, "scope": scope, "versions": [{"name": VERSION, "served": available}]}
        served = custom_resources({"spec": spec})
        readable = [replace(each, discovery={**each.discovery, "verbs": ["get", "list"]}) for each in served]
        store.registry.replace_custom(GROUP, plural, readable)


def answer(store: Store, resource: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Obj:
    """The response to a request for the usage of nodes or pods.

    Raises:
        ApiError: 404, there is no such node or pod; 400, a selector cannot be parsed.
    """
    pods = [pod for pod in store.view("v1", "Pod", namespace) if is_true(pod, "Ready")]
    usage = map(_of_pod, pods) if resource.namespaced else (_of_node(each, pods) for each in store.view("v1", "Node"))
    head = {"kind": resource.kind, "apiVersion": resource.api_version}
    if not name:
        fits = selector(namespace, query)
        items = [{**head, **each} for each in usage if fits(each)]
        return {**head, "kind": f"{resource.kind}List", "metadata": {}, "items": items}
    for each in usage:
        if name_of(each) == name:
            return {**head, **each}
    raise not_found(resource, name)


def served(store: Store, path: str, query: Mapping[str, str]) -> Obj:
    """What metrics-server responds to a GET of a path.

    Raises:
        ApiError: 404, it does not serve that; 400, a selector cannot be parsed.
    """
    match path.strip("/").split("/"):
        case ["apis", group]:
            return discovery.group(store.registry, group)
        case ["apis", group, version]:
            return discovery.resource_list(store.registry, group, version)
        case ["apis", group, version, "namespaces", namespace, plural, *name]:
            return answer(store, store.registry.by_path(group, version, plural), namespace, "".join(name), query)
        case ["apis", group, version, plural, *name]:
            return answer(store, store.registry.by_path(group, version, plural), "", "".join(name), query)
    raise no_such_path()


def _of_pod(pod: Obj) -> Obj:
    used = [
        {"name": each["name"], "usage": _quantities([_requested(each)])} for each in pod["spec"].get("containers") or ()
    ]
    return {**_measured(pod), "containers": used}


def _of_node(node: Obj, pods: Iterable[Obj]) -> Obj:
    there = [pod for pod in pods if pod["spec"].get("nodeName") == name_of(node)]
    used = [_requested(each) for pod in there for each in pod["spec"].get("containers") or ()]
    return {**_measured(node), "usage": _quantities([SYSTEM, *used])}


def _measured(obj: Obj) -> Obj:
    where = {"namespace": namespace_of(obj)} if namespace_of(obj) else {}
    return {
        "metadata": {"name": name_of(obj), **where, "labels": labels_of(obj), "creationTimestamp": timestamp()},
        "timestamp": timestamp(),
        "window": WINDOW,
    }


def _requested(container: Obj) -> dict[str, Decimal]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: amount(requests[name]) if name in requests else least for name, least in IDLE.items()}


def _quantities(used: list[dict[str, Decimal]]) -> dict[str, str]:
    cores, memory = (sum((each[name] for each in used), Decimal(0)) for name in ("cpu", "memory"))
    return {"cpu": f"{int(cores * 10**9)}n", "memory": f"{int(memory) >> 10}Ki"}
