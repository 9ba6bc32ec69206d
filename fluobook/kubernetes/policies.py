"""NetworkPolicies as Cilium enforces them: may this source open a connection to that pod on that port?

What a target lets in and what a source lets out are two questions; a connection needs both. Three facts of Cilium
decide the model. Nodes, and with them the API server, have identities that no selector and no ipBlock matches: only a
rule without `from` admits them. An ipBlock means addresses outside the cluster, never pods or nodes. Pods on the host
network are outside all policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Generic, Protocol, TypeVar

from fluobook.kubernetes.selectors import matches

TCP = "TCP"
NAMESPACE_NAME = "kubernetes.io/metadata.name"
_POD_NAMESPACE, _NAMESPACE_LABELS = "io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels"
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

    def leaves(self, source: Endpoint, target: Endpoint, port: tuple[int, str]) -> bool:
        """Whether the policies for a pod's egress let it open a connection to a port of `target`."""
        isolating = [policy for policy in self.policies if closes_egress(policy) and _is_for(policy, source)]
        rules = [(policy, rule) for policy in isolating for rule in policy.data["spec"].get("egress") or ()]
        return not isolating or any(
            _opens(policy, rule, target, port) and self._reaches(policy, rule, target) for policy, rule in rules
        )

    def _reaches(self, policy: P, rule: Mapping[str, Any], target: Endpoint) -> bool:
        if policy.kind == "CiliumNetworkPolicy":
            return self._matches_cilium(policy, rule, "to", target)
        return self._matches_peers(rule.get("to"), target, policy.namespace)

    def _matches_cilium(self, policy: P, rule: Mapping[str, Any], direction: str, peer: Endpoint) -> bool:
        """Whether the `from…` or `to…` fields of a rule name a peer; a name in DNS is outside the cluster."""
        entities = {"all", peer.entity or "cluster"} | ({"cluster", "kube-apiserver"} if peer == NODES else set())
        labels = {**peer.labels, _POD_NAMESPACE: peer.namespace}
        namespace = {NAMESPACE_NAME: peer.namespace, **self.namespaces.get(peer.namespace, {})}
        labels |= {f"{_NAMESPACE_LABELS}.{key}": value for key, value in namespace.items()}
        blocks = [{"cidr": cidr} for cidr in rule.get(f"{direction}CIDR") or ()]
        blocks += rule.get(f"{direction}CIDRSet") or ()
        selectors = () if peer.entity else rule.get(f"{direction}Endpoints") or ()
        is_everybody = not any(key.startswith(direction) and key != "toPorts" for key in rule)
        return (
            is_everybody
            or not entities.isdisjoint(rule.get(f"{direction}Entities") or ())
            or any(_matches_endpoint(selector, labels, policy.namespace) for selector in selectors)
            or (peer.entity == "world" and any(_in_block(block, peer.address) for block in blocks))
        )

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
        if policy.kind == "CiliumNetworkPolicy":
            return self._matches_cilium(policy, rule, "from", source)
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
                NAMESPACE_NAME: source.namespace,
                **self.namespaces.get(source.namespace, {}),
            }
            if not matches(peer["namespaceSelector"] or {}, labels):
                return False
        elif source.namespace != namespace:
            return False
        return matches(peer.get("podSelector") or {}, source.labels)


def _selects(policy: PolicyObject, target: Endpoint) -> bool:
    """Whether a policy isolates a pod for ingress."""
    return closes_ingress(policy) and _is_for(policy, target)


def closes_ingress(policy: PolicyObject) -> bool:
    """Whether a policy lets only what it names connect to its pods."""
    spec = policy.data["spec"]
    if policy.kind == "CiliumNetworkPolicy":
        return "ingress" in spec
    return "Ingress" in (spec.get("policyTypes") or ["Ingress"])


def closes_egress(policy: PolicyObject) -> bool:
    """Whether a policy lets its pods connect only to what it names."""
    spec = policy.data["spec"]
    if policy.kind == "CiliumNetworkPolicy":
        return "egress" in spec
    return "Egress" in (spec.get("policyTypes") or ["Egress"] * ("egress" in spec))


def _is_for(policy: PolicyObject, pod: Endpoint) -> bool:
    selector = policy.data["spec"].get("podSelector", policy.data["spec"].get("endpointSelector"))
    return policy.namespace == pod.namespace and matches(selector or {}, pod.labels)


def _matches_endpoint(selector: Mapping[str, Any], labels: Mapping[str, str], namespace: str) -> bool:
    """Whether a selector of Cilium, whose labels may have a source (k8s:app), selects a pod with these labels."""
    bare = {key.partition(":")[2] or key: value for key, value in (selector.get("matchLabels") or {}).items()}
    expressions = [
        {**each, "key": each["key"].partition(":")[2] or each["key"]} for each in selector.get("matchExpressions") or ()
    ]
    names = {*bare, *(each["key"] for each in expressions)}
    if not any(name.startswith((_POD_NAMESPACE, _NAMESPACE_LABELS)) for name in names):
        bare[_POD_NAMESPACE] = namespace
    return matches({"matchLabels": bare, "matchExpressions": expressions}, labels)


def _ingress(policy: PolicyObject) -> Sequence[Mapping[str, Any]]:
    return policy.data["spec"].get("ingress") or ()


def _opens(policy: PolicyObject, rule: Mapping[str, Any], target: Endpoint, wanted: tuple[int, str]) -> bool:
    """Whether a rule is about a port of a pod, for whatever sources."""
    if policy.kind != "CiliumNetworkPolicy":
        return _matches_ports(rule.get("ports"), target, wanted)
    ports = [port for group in rule.get("toPorts") or () for port in group.get("ports") or ()]
    number, protocol = wanted
    for port in ports:
        first = int(port["port"]) if port["port"].isdigit() else target.named_ports.get(port["port"], -1)
        if port.get("protocol", "ANY") in (protocol, "ANY") and first <= number <= port.get("endPort", first):
            return True
    return not ports


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
