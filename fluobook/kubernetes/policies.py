"""NetworkPolicies as Cilium enforces them: may this source open a connection to that pod on that port?

Three facts of Cilium decide the model. Nodes, and with them the API server, have identities that no selector and no
ipBlock matches: only a rule without `from` admits them. An ipBlock means addresses outside the cluster, never pods or
nodes. Pods on the host network are outside all policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Generic, Protocol, TypeVar

from fluobook.kubernetes.selectors import matches

TCP = "TCP"
_CLOSE = 3
"""Score of a policy that matches in two of three parts, one of them by name."""
_EVERY_PORT: tuple[dict[str, Any], ...] = ({},)


class PolicyObject(Protocol):
    """A NetworkPolicy or CiliumNetworkPolicy, with whatever else its reader keeps about it."""

    @property
    def kind(self) -> str:
        """The object's kind."""

    @property
    def namespace(self) -> str:
        """The object's namespace."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The whole object."""


@dataclass(frozen=True)
class Policy:
    """A policy that is nothing but its object."""

    data: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.data["kind"])

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return str(self.data["metadata"]["namespace"])


P = TypeVar("P", bound=PolicyObject)


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
class Verdict(Generic[P]):
    """Whether a connection is allowed, and the policies that decided: the allowing, or else the isolating ones."""

    allowed: bool
    policies: tuple[P, ...]


@dataclass(frozen=True)
class Policies(Generic[P]):
    """The policies of a cluster, and the labels of its namespaces by name."""

    policies: tuple[P, ...]
    namespaces: Mapping[str, Mapping[str, str]]

    def verdict(self, source: Endpoint, target: Endpoint, port: int, protocol: str = TCP) -> Verdict[P]:
        """Whether `source` may open a connection to a port of `target`; replies are always allowed."""
        return self.verdicts([source], target, (port, protocol))[0]

    def verdicts(self, sources: Iterable[Endpoint], target: Endpoint, port: tuple[int, str]) -> list[Verdict[P]]:
        """Whether each source may open a connection to a port of a pod."""
        isolating = self.isolating(target)
        rules = [
            (policy, [rule for rule in _ingress(policy) if _opens(policy, rule, target, port)]) for policy in isolating
        ]
        verdicts = []
        for source in sources:
            allowing = tuple(p for p, open_rules in rules if any(self._admits(p, rule, source) for rule in open_rules))
            verdicts.append(Verdict(bool(allowing) or not isolating, allowing or isolating))
        return verdicts

    def isolating(self, target: Endpoint) -> tuple[P, ...]:
        """The policies that isolate a pod for ingress; none where everything may connect to it."""
        if target.host_network or target.entity:
            return ()
        return tuple(policy for policy in self.policies if _selects(policy, target))

    def nearest(self, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> tuple[P, ...]:
        """The policy that would allow the connection but for one part (its pods, a peer or a port), if there is one."""
        candidates = [p for p in self.policies if p.namespace == target.namespace and p.kind == "NetworkPolicy"]
        scores = [self._score(policy, source, target, port) for policy in candidates]
        best = max(scores, default=0)
        return (candidates[scores.index(best)],) if best >= _CLOSE else ()

    def _score(self, policy: P, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> int:
        """How much of a policy and its best rule matches: 2 for what it names, 1 where it takes any, else 0."""
        spec = policy.data["spec"]
        pods = _selects(policy, target) * (2 if spec.get("podSelector") else 1)
        return pods + max(
            (
                _matches_ports(rule.get("ports"), target, port) * (2 if rule.get("ports") else 1)
                + self._matches_peers(rule.get("from"), source, policy.namespace) * (2 if rule.get("from") else 1)
                for rule in spec.get("ingress") or ()
            ),
            default=0,
        )

    def _admits(self, policy: P, rule: Mapping[str, Any], source: Endpoint) -> bool:
        if policy.kind == "CiliumNetworkPolicy":  # the tree uses entities alone
            entities = rule.get("fromEntities") or ()
            return source.entity in entities or "all" in entities
        return self._matches_peers(rule.get("from"), source, policy.namespace)

    def _matches_peers(self, peers: Sequence[Mapping[str, Any]] | None, source: Endpoint, namespace: str) -> bool:
        return not peers or any(self._matches_peer(peer, source, namespace) for peer in peers)

    def _matches_peer(self, peer: Mapping[str, Any], source: Endpoint, namespace: str) -> bool:
        if "ipBlock" in peer:
            return source.entity == "world" and _in_block(peer["ipBlock"], source.address)
        if source.entity or source.host_network:
            return False
        if "namespaceSelector" in peer:
            labels = {
                "kubernetes.io/metadata.name": source.namespace,
                **self.namespaces.get(source.namespace, {}),
            }
            if not matches(peer["namespaceSelector"] or {}, labels):
                return False
        elif source.namespace != namespace:
            return False
        return matches(peer.get("podSelector") or {}, source.labels)


def _selects(policy: PolicyObject, target: Endpoint) -> bool:
    """Whether a policy isolates a pod for ingress."""
    if policy.namespace != target.namespace:
        return False
    spec = policy.data["spec"]
    if policy.kind == "CiliumNetworkPolicy":
        return "ingress" in spec and matches(spec.get("endpointSelector") or {}, target.labels)
    isolates = "Ingress" in (spec.get("policyTypes") or ["Ingress"])
    return isolates and matches(spec.get("podSelector") or {}, target.labels)


def _ingress(policy: PolicyObject) -> Sequence[Mapping[str, Any]]:
    return policy.data["spec"].get("ingress") or ()


def _opens(policy: PolicyObject, rule: Mapping[str, Any], target: Endpoint, wanted: tuple[int, str]) -> bool:
    """Whether a rule is about a port of a pod, for whatever sources."""
    if policy.kind != "CiliumNetworkPolicy":
        return _matches_ports(rule.get("ports"), target, wanted)
    ports = [port for group in rule.get("toPorts") or () for port in group.get("ports") or ()]
    number, protocol = wanted
    return not ports or any(
        int(port["port"]) == number and port.get("protocol", "ANY") in (protocol, "ANY") for port in ports
    )


def _matches_ports(ports: Iterable[Mapping[str, Any]] | None, target: Endpoint, wanted: tuple[int, str]) -> bool:
    return any(_matches_port(port, target, wanted) for port in ports or _EVERY_PORT)


def _matches_port(port: Mapping[str, Any], target: Endpoint, wanted: tuple[int, str]) -> bool:
    number, protocol = wanted
    if "port" not in port:
        return port.get("protocol", protocol) == protocol
    first = target.named_ports.get(port["port"], -1) if isinstance(port["port"], str) else port["port"]
    return port.get("protocol", TCP) == protocol and first <= number <= port.get("endPort", first)


def _in_block(block: Mapping[str, Any], text: str) -> bool:
    address = ip_address(text)
    excluded = block.get("except") or ()
    return address in ip_network(block["cidr"]) and not any(address in ip_network(cidr) for cidr in excluded)
