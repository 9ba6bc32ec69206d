"""NetworkPolicies as Cilium enforces them: may this source open a connection to that pod on that port?

Three facts of Cilium decide the model (facts: charts.md 7.1). Nodes, and with them the API server, have identities that
no selector and no ipBlock can name: only a rule without `from` lets them in. An ipBlock means addresses outside the
cluster, never pods or nodes. Pods on the host's network are outside all policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from fluobook.gitops.reach.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook.gitops.documents import Document

TCP = "TCP"
_NEAR = 3
"""Two of three fit, one of them by name."""
_EVERY_PORT: tuple[dict[str, Any], ...] = ({},)


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection.

    `entity` is "" for a pod, else Cilium's name for what it is: "world", "remote-node" or "ingress" (its own proxy).
    """

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    entity: str = ""
    address: str = "203.0.113.1"
    host_network: bool = False
    named_ports: Mapping[str, int] = field(default_factory=dict, hash=False)


WORLD = Endpoint("world", entity="world")
"""A client outside the cluster."""
NODES = Endpoint("nodes", entity="remote-node")
"""The API server, or anything else on another node's own network."""


@dataclass(frozen=True)
class Verdict:
    """Whether a connection is allowed, and which policies decided: the allowing, or else the isolating ones."""

    allowed: bool
    policies: tuple[Document, ...]


@dataclass(frozen=True)
class Policies:
    """The policies of a cluster, and the labels of its namespaces by name."""

    documents: tuple[Document, ...]
    namespaces: Mapping[str, Mapping[str, str]]

    def verdict(self, source: Endpoint, target: Endpoint, port: int, protocol: str = TCP) -> Verdict:
        """Whether `source` may open a connection to a port of `target`; answers always come back."""
        return self.judge(self.isolating(target), source, target, (port, protocol))

    def isolating(self, target: Endpoint) -> tuple[Document, ...]:
        """The policies that close a pod but for what they allow; none where it is open to all."""
        if target.host_network or target.entity:
            return ()
        return tuple(policy for policy in self.documents if _selects(policy, target))

    def judge(
        self, isolating: Sequence[Document], source: Endpoint, target: Endpoint, port: tuple[int, str]
    ) -> Verdict:
        """As `verdict`, for a target whose isolating policies are known: many sources ask for each."""
        allowing = tuple(policy for policy in isolating if self._allows(policy, source, target, port))
        return Verdict(bool(allowing) or not isolating, allowing or tuple(isolating))

    def nearest(self, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> tuple[Document, ...]:
        """The policy that lacks one thing alone to allow it (its pods, a peer or a port), where there is one."""
        here = [one for one in self.documents if one.namespace == target.namespace and one.kind == "NetworkPolicy"]
        fitting = [self._fitting(policy, source, target, port) for policy in here]
        best = max(fitting, default=0)
        return (here[fitting.index(best)],) if best >= _NEAR else ()

    def _fitting(self, policy: Document, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> int:
        """How much of a policy and its best rule fits: 2 for what it names, 1 where it takes any, else 0."""
        spec = policy.data["spec"]
        pods = _selects(policy, target) * (2 if spec.get("podSelector") else 1)
        return pods + max(
            (
                _ports(rule.get("ports"), target, port) * (2 if rule.get("ports") else 1)
                + self._peers(rule.get("from"), source, policy.namespace) * (2 if rule.get("from") else 1)
                for rule in spec.get("ingress") or ()
            ),
            default=0,
        )

    def _allows(self, policy: Document, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> bool:
        spec = policy.data["spec"]
        if policy.kind == "CiliumNetworkPolicy":
            return any(_cilium_rule(rule, source, port) for rule in spec.get("ingress") or ())
        rules = spec.get("ingress") or ()
        return any(
            _ports(rule.get("ports"), target, port) and self._peers(rule.get("from"), source, policy.namespace)
            for rule in rules
        )

    def _peers(self, peers: Sequence[Mapping[str, Any]] | None, source: Endpoint, namespace: str) -> bool:
        return not peers or any(self._peer(peer, source, namespace) for peer in peers)

    def _peer(self, peer: Mapping[str, Any], source: Endpoint, namespace: str) -> bool:
        if "ipBlock" in peer:
            return source.entity == "world" and _in_block(peer["ipBlock"], source.address)
        if source.entity or source.host_network:
            return False
        if "namespaceSelector" in peer:
            labels = {
                "kubernetes.io/metadata.name": source.namespace,
                **self.namespaces.get(source.namespace, {}),
            }
            if not matches(peer["namespaceSelector"], labels):
                return False
        elif source.namespace != namespace:
            return False
        return matches(peer.get("podSelector"), source.labels)


def _selects(policy: Document, target: Endpoint) -> bool:
    """Whether a policy isolates a pod for ingress."""
    if policy.namespace != target.namespace:
        return False
    spec = policy.data["spec"]
    if policy.kind == "CiliumNetworkPolicy":
        return "ingress" in spec and matches(spec.get("endpointSelector"), target.labels)
    return "Ingress" in (spec.get("policyTypes") or ["Ingress"]) and matches(spec.get("podSelector"), target.labels)


def _ports(ports: Iterable[Mapping[str, Any]] | None, target: Endpoint, wanted: tuple[int, str]) -> bool:
    return any(_port(one, target, wanted) for one in ports or _EVERY_PORT)


def _port(one: Mapping[str, Any], target: Endpoint, wanted: tuple[int, str]) -> bool:
    if "port" not in one:
        return one.get("protocol", wanted[1]) == wanted[1]
    first = target.named_ports.get(one["port"], -1) if isinstance(one["port"], str) else one["port"]
    return one.get("protocol", TCP) == wanted[1] and first <= wanted[0] <= one.get("endPort", first)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    here = ip_address(address)
    return here in ip_network(block["cidr"]) and not any(here in ip_network(one) for one in block.get("except") or ())


def _cilium_rule(rule: Mapping[str, Any], source: Endpoint, port: tuple[int, str]) -> bool:
    """The part of CiliumNetworkPolicy that the tree uses: entities and ports."""
    entities = rule.get("fromEntities")
    fits = entities is not None and (source.entity in entities or "all" in entities)
    listed = [one for ports in rule.get("toPorts") or () for one in ports.get("ports") or ()]
    number, protocol = port
    return fits and (
        not listed
        or any(int(one["port"]) == number and one.get("protocol", "ANY") in (protocol, "ANY") for one in listed)
    )
