"""The source of Hubble's flows in the lab: the cluster's pods, and what its NetworkPolicies allow to reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.kubernetes import policies as network
from fluobook.kubernetes.policies import Policies, Policy
from fluobook_lab.hubble import Endpoint, Port, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        self._policy_versions: list[str] = []
        self._policies: Policies[Policy] = Policies((), {})
        self._verdicts: dict[tuple[int, int, Port], bool] = {}

    def endpoints(self) -> Sequence[Endpoint]:
        """Every running pod that has an address, and the world outside; `denied` uses the policies of this moment."""
        pods = [pod for pod in self._store.view("v1", "Pod") if _ip(pod)]
        policies = self._store.view("networking.k8s.io/v1", "NetworkPolicy")
        namespaces = self._store.view("v1", "Namespace")
        versions, policy_versions = _versions(pods), _versions([*policies, *namespaces])
        if versions != self._versions:
            pods.sort(key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
            self._endpoints = (WORLD, *(_endpoint(number, pod) for number, pod in enumerate(pods)))
        if policy_versions != self._policy_versions:
            labels = {obj["metadata"]["name"]: obj["metadata"].get("labels") or {} for obj in namespaces}
            self._policies = Policies(tuple(Policy(policy) for policy in policies), labels)
        if (versions, policy_versions) != (self._versions, self._policy_versions):
            self._verdicts.clear()
            self._versions, self._policy_versions = versions, policy_versions
        return self._endpoints

    def denied(self, traffic: Traffic) -> bool:
        """Whether no policy that selects the destination allows the packet, although some policy selects it."""
        key = (traffic.source.identity, traffic.destination.identity, traffic.port)
        if key not in self._verdicts:
            source, target = _end_of_connection(traffic.source), _end_of_connection(traffic.destination)
            verdict = self._policies.verdict(source, target, traffic.port.number, traffic.port.protocol)
            self._verdicts[key] = not verdict.allowed
        return self._verdicts[key]


def _end_of_connection(endpoint: Endpoint) -> network.Endpoint:
    labels = (label.removeprefix("k8s:").partition("=") for label in endpoint.labels if label.startswith("k8s:"))
    return network.Endpoint(
        endpoint.pod,
        endpoint.namespace,
        {key: value for key, _, value in labels},
        entity="" if endpoint.pod else "world",
        address=endpoint.ip,
    )


def _versions(objects: Iterable[Obj]) -> list[str]:
    return [obj["metadata"]["resourceVersion"] for obj in objects]


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
