"""What Hubble sees in the lab: the pods of its cluster, and what the ingress rules of NetworkPolicies let through."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fluobook_lab.hubble import Endpoint, Port, Traffic
from fluobook_lab.kube.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

WORLD = Endpoint("203.0.113.7", 2, "", labels=("reserved:world",))
_FIRST_IDENTITY = 16384


class ClusterFlows:
    """The source of flows: a cluster's pods and policies as they are now.

    Args:
        store: the lab's Kubernetes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: list[str] = []
        self._endpoints: Sequence[Endpoint] = (WORLD,)

    def endpoints(self) -> Sequence[Endpoint]:
        """Every running pod that has an address, and the world outside; made anew when a pod changed."""
        pods = [pod for pod in self._store.view("v1", "Pod") if _ip(pod)]
        versions = [pod["metadata"]["resourceVersion"] for pod in pods]
        if versions != self._versions:
            pods.sort(key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
            self._endpoints = (WORLD, *(_endpoint(number, pod) for number, pod in enumerate(pods)))
            self._versions = versions
        return self._endpoints

    def denied(self, traffic: Traffic) -> bool:
        """Whether no policy that selects the destination lets the packet in, although some policy selects it."""
        target = traffic.destination
        if not target.namespace:
            return False
        policies = [
            p
            for p in self._store.view("networking.k8s.io/v1", "NetworkPolicy", target.namespace)
            if _selects(p, target)
        ]
        rules = [rule for policy in policies for rule in policy["spec"].get("ingress") or ()]
        return bool(policies) and not any(self._lets(rule, traffic) for rule in rules)

    def _lets(self, rule: Obj, traffic: Traffic) -> bool:
        ports, peers = rule.get("ports") or (), rule.get("from") or ()
        fits = not ports or any(_fits(port, traffic.port) for port in ports)
        return fits and (not peers or any(self._is_peer(peer, traffic) for peer in peers))

    def _is_peer(self, peer: Obj, traffic: Traffic) -> bool:
        source = traffic.source
        if "ipBlock" in peer:
            return source.pod == ""
        if not source.pod:
            return False
        if "namespaceSelector" in peer:
            namespace = self._store.find("v1", "Namespace", source.namespace) or {"metadata": {}}
            here = matches(peer["namespaceSelector"], namespace["metadata"].get("labels") or {})
        else:
            here = source.namespace == traffic.destination.namespace
        return here and matches(peer.get("podSelector") or {}, labels_of(source))


@lru_cache(maxsize=1024)
def labels_of(endpoint: Endpoint) -> dict[str, str]:
    """A pod's labels, out of Cilium's; not to be changed."""
    pairs = (label.removeprefix("k8s:").partition("=") for label in endpoint.labels if label.startswith("k8s:"))
    return {key: value for key, _, value in pairs}


def _ip(pod: Obj) -> str:
    return (pod.get("status") or {}).get("podIP") or ""


def _endpoint(number: int, pod: Obj) -> Endpoint:
    metadata = pod["metadata"]
    ports = [port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ()]
    return Endpoint(
        _ip(pod),
        _FIRST_IDENTITY + number,
        pod["spec"].get("nodeName", ""),
        metadata["namespace"],
        metadata["name"],
        tuple(f"k8s:{key}={value}" for key, value in sorted((metadata.get("labels") or {}).items())),
        tuple(Port(port.get("protocol", "TCP"), port["containerPort"]) for port in ports),
    )


def _selects(policy: Obj, endpoint: Endpoint) -> bool:
    spec = policy["spec"]
    about_ingress = "Ingress" in (spec.get("policyTypes") or ["Ingress"])
    return about_ingress and matches(spec.get("podSelector") or {}, labels_of(endpoint))


def _fits(wanted: dict[str, Any], port: Port) -> bool:
    number = wanted.get("port")
    return wanted.get("protocol", "TCP") == port.protocol and (number is None or number == port.number)
