"""Services get endpoints and load balancer addresses; Ingresses get the address of their controller's Service."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from fluobook.kubernetes.selectors import matches
from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.controllers.nodes import lease
from fluobook_lab.kube.objects import (
    annotations_of,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


SERVICES = ("", "services")
POOLS = ("cilium.io", "ciliumloadbalancerippools")
POLICIES = ("cilium.io", "ciliuml2announcementpolicies")
OPERATOR = ("kube-system", "cilium-operator")
ASKED = "lbipam.cilium.io/ips"
SATISFIED = "cilium.io/IPAMRequestSatisfied"
CLASSES = (None, "", "io.cilium/l2-announcer", "io.cilium/bgp-control-plane")


class Endpoints:
    """Keeps one EndpointSlice for each Service with a selector."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {SERVICES: own_key, ("", "pods"): self._of_pod}

    def _of_pod(self, pod: Obj) -> list[Key]:
        services = self._store.storage.scan(SERVICES, namespace_of(pod))
        return [key for key, service in services if _selects(service, pod)]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        service = self._store.find("v1", "Service", key[1], key[0])
        if service is None or not service["spec"].get("selector"):
            return None
        pods = [pod for pod in self._store.view("v1", "Pod", key[0]) if _selects(service, pod)]
        self._store.apply(_slice(service, pods), manager="endpointslice-controller", force=True)
        return None


def _selects(service: Obj, pod: Obj) -> bool:
    selector = service["spec"].get("selector") or {}
    return bool(selector) and selector.items() <= labels_of(pod).items()


def _slice(service: Obj, pods: list[Obj]) -> Obj:
    labels = {"kubernetes.io/service-name": name_of(service)}
    labels |= {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    metadata: Obj = {"name": name_of(service), "namespace": namespace_of(service), "labels": labels}
    metadata |= {"ownerReferences": [owner_reference(service)]}
    ports = [
        {"name": port.get("name", ""), "port": _target(port), "protocol": port["protocol"]}
        for port in service["spec"].get("ports") or []
    ]
    endpoints = [_endpoint(pod) for pod in pods if (pod.get("status") or {}).get("podIP")]
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    return {**head, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}


def _target(port: Obj) -> int:
    target = port.get("targetPort")
    return target if isinstance(target, int) else port["port"]


def _endpoint(pod: Obj) -> Obj:
    ready = is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")
    reference = {"kind": "Pod", "name": name_of(pod), "namespace": namespace_of(pod), "uid": pod["metadata"]["uid"]}
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": not ready and is_true(pod, "Ready")},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": reference,
    }


class LoadBalancers:
    """Simulates Cilium's LB IPAM and L2 announcements: an address from the first pool that fits, held by one node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {
            SERVICES: own_key,
            POOLS: self._all,
            POLICIES: self._all,
            ("apps", "deployments"): lambda obj: self._all(obj) if name_of(obj) == OPERATOR[1] else [],
        }

    def _all(self, obj: Obj) -> list[Key]:
        del obj
        services = self._store.storage.scan(SERVICES)
        return [key for key, service in services if service["spec"].get("type") == "LoadBalancer"]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        service = self._store.find("v1", "Service", key[1], key[0])
        if service is None or not self._operator_runs() or not _is_ours(service):
            return None
        status = service.get("status") or {}
        has = [entry["ip"] for entry in (status.get("loadBalancer") or {}).get("ingress") or []]
        pools = self._pools(service)
        if not has or not any(has[0] in _addresses(pool) for pool in pools):
            self._assign(service, pools)
        self._announce(service)
        return None

    def _operator_runs(self) -> bool:
        operator = self._store.find("apps/v1", "Deployment", OPERATOR[1], OPERATOR[0])
        return operator is not None and is_true(operator, "Available")

    def _pools(self, service: Obj) -> list[Obj]:
        version = "v2" if self._store.registry.find("cilium.io/v2", "CiliumLoadBalancerIPPool") else "v2alpha1"
        pools = self._store.view(f"cilium.io/{version}", "CiliumLoadBalancerIPPool")
        return [pool for pool in pools if not pool["spec"].get("disabled") and _admits(pool, service)]

    def _assign(self, service: Obj, pools: list[Obj]) -> None:
        taken = {
            entry["ip"]
            for key, other in self._store.storage.scan(SERVICES)
            for entry in ((other.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
            if key != (namespace_of(service), name_of(service))
        }
        asked = [ip.strip() for ip in annotations_of(service).get(ASKED, "").split(",") if ip.strip()]
        free = (ip for pool in pools for ip in _addresses(pool) if ip not in taken and (not asked or ip in asked))
        chosen = next(free, None)
        condition = (
            ("True", "satisfied", "") if chosen else ("False", "no_pool", "There are no enabled pools that match")
        )
        old = service.get("status") or {}
        status: Obj = {"loadBalancer": {"ingress": [{"ip": chosen, "ipMode": "VIP"}]} if chosen else {}}
        status["conditions"] = with_condition(old.get("conditions") or [], SATISFIED, *condition)
        self._store.set_status(service, status)

    def _announce(self, service: Obj) -> None:
        """The lease of the node that answers ARP for the Service, if a policy asks for it."""
        if not self._store.view("cilium.io/v2alpha1", "CiliumL2AnnouncementPolicy"):
            return
        nodes = [node for node in self._store.view("v1", "Node") if is_true(node, "Ready")]
        excluded = "node.kubernetes.io/exclude-from-external-load-balancers"
        holders = sorted(name_of(node) for node in nodes if excluded not in labels_of(node))
        name = f"cilium-l2announce-{namespace_of(service)}-{name_of(service)}"
        if holders and self._store.find("coordination.k8s.io/v1", "Lease", name, "kube-system") is None:
            held = lease(holders[0], 15)
            self._store.create({**held, "metadata": {"name": name, "namespace": "kube-system"}})


def _is_ours(service: Obj) -> bool:
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in CLASSES


def _admits(pool: Obj, service: Obj) -> bool:
    selector = pool["spec"].get("serviceSelector")
    if not selector:
        return True
    labels = {
        **labels_of(service),
        "io.kubernetes.service.namespace": namespace_of(service),
        "io.kubernetes.service.name": name_of(service),
    }
    return matches(selector, labels)


def _addresses(pool: Obj) -> Iterator[str]:
    for block in pool["spec"].get("blocks") or []:
        if "cidr" in block:
            yield from map(str, ipaddress.ip_network(block["cidr"], strict=False).hosts())
        else:
            first = ipaddress.ip_address(block["start"])
            last = ipaddress.ip_address(block.get("stop") or block["start"])
            yield from (str(first + step) for step in range(int(last) - int(first) + 1))


API = "networking.k8s.io/v1"
INGRESSES = ("networking.k8s.io", "ingresses")
INGRESS_CLASSES = ("networking.k8s.io", "ingressclasses")
CONTROLLER = "k8s.io/ingress-nginx"
DEFAULT = "ingressclass.kubernetes.io/is-default-class"
OURS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}


class Ingresses:
    """Publishes the controller's address in the status of every Ingress that is its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {INGRESSES: own_key, INGRESS_CLASSES: self._all, SERVICES: self._of_service}

    def _all(self, obj: Obj) -> list[Key]:
        del obj
        return [key for key, _ in self._store.storage.scan(INGRESSES)]

    def _of_service(self, service: Obj) -> list[Key]:
        return self._all(service) if _is_the_controllers(service) else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        ingress = self._store.find(API, "Ingress", key[1], key[0])
        if ingress is None or not self._is_ours(ingress):
            return None
        addresses = [{"ip": entry["ip"]} for entry in self._addresses()]
        self._store.set_status(ingress, {"loadBalancer": {"ingress": addresses} if addresses else {}})
        return None

    def _is_ours(self, ingress: Obj) -> bool:
        name = ingress["spec"].get("ingressClassName")
        classes = [
            item for item in self._store.view(API, "IngressClass") if item["spec"].get("controller") == CONTROLLER
        ]
        return any(item["metadata"]["name"] == name if name else _is_default(item) for item in classes)

    def _addresses(self) -> list[Obj]:
        services = (service for _, service in self._store.storage.scan(SERVICES) if _is_the_controllers(service))
        return next(
            (
                ingress
                for service in services
                if (ingress := ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress"))
            ),
            [],
        )


def _is_the_controllers(service: Obj) -> bool:
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and OURS.items() <= (spec.get("selector") or {}).items()


def _is_default(ingress_class: Obj) -> bool:
    return annotations_of(ingress_class).get(DEFAULT) == "true"
