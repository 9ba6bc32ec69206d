"""Who gets a kubelet's serving certificate: what stage 4 approves, and what kubelet-csr-approver approves.

The approver has one list of prefixes and one pattern for all nodes, and it compares a DNS name with the node's name
only if the request has one. So an address in its list is an address that every node can get a certificate for. Control
planes' addresses are not in it: their kubelets' requests stay pending until stage 4 approves them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from fluobook.params import Node, Platform

NODE_PREFIX = "system:node:"
LONGEST_SECONDS = 367 * 86400
"""The longest life of a certificate that the approver allows by default."""
UNRESOLVED = "The SAN DNS Name could not be resolved"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


@dataclass(frozen=True)
class Approver:
    """The settings of kubelet-csr-approver, with its own defaults.

    Args:
        pattern: a DNS name must contain a match.
        prefixes: networks that addresses must be in.
        names: how many DNS names a request may have.
        denies: whether it denies what it does not approve; else it leaves it pending.
        longest: seconds that a request may ask for.
        without_dns: whether it approves a name that no DNS resolves to the request's addresses. By default it asks the
            cluster's DNS, which does not have the names of Talos' nodes.
        any_name: whether a DNS name need not begin with the node's.
    """

    pattern: str = ".*"
    prefixes: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    names: int = 1
    denies: bool = True
    longest: int = LONGEST_SECONDS
    without_dns: bool = False
    any_name: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Approver:
        """The settings in the environment of its container.

        Raises:
            ValueError: it would not start: a prefix, a number or the pattern is invalid.
        """
        pattern = environment.get("PROVIDER_REGEX") or cls.pattern
        re.compile(pattern)
        prefixes = environment.get("PROVIDER_IP_PREFIXES", "")
        for prefix in filter(None, prefixes.split(",")):
            if "/" not in prefix:
                raise ValueError(f"{prefix!r} is no prefix")
            ip_network(prefix, strict=False)
        return cls(
            pattern,
            tuple(prefixes.split(",")) if prefixes else cls.prefixes,
            int(environment.get("ALLOWED_DNS_NAMES") or cls.names),
            environment.get("SKIP_DENY_STEP", "") not in _TRUE,
            int(environment.get("MAX_EXPIRATION_SEC") or cls.longest),
            environment.get("BYPASS_DNS_RESOLUTION", "") in _TRUE,
            environment.get("BYPASS_HOSTNAME_CHECK", "") in _TRUE,
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Approver:
        """The settings that its chart makes of its values; see `from_environment`."""
        environment = {
            "PROVIDER_REGEX": str(values.get("providerRegex") or ""),
            "PROVIDER_IP_PREFIXES": ",".join(map(str, values.get("providerIpPrefixes") or ())),
            "ALLOWED_DNS_NAMES": str(values.get("allowedDnsNames") or ""),
            "SKIP_DENY_STEP": str(values.get("skipDenyStep") or "").lower(),
            "BYPASS_DNS_RESOLUTION": str(values.get("bypassDnsResolution") or "").lower(),
            "BYPASS_HOSTNAME_CHECK": str(values.get("bypassHostnameCheck") or "").lower(),
            "MAX_EXPIRATION_SEC": str(values.get("maxExpirationSeconds") or ""),
        }
        return cls.from_environment(environment)

    def problems(self, node: str, dns: Sequence[str], ips: Sequence[str], seconds: int = 0) -> Iterator[str]:
        """Why it does not approve a node's request for these names and addresses, in its words."""
        if not dns and not ips:
            yield "The x509 Cert Request SAN contains neither an IP address nor a DNS name"
        if len(dns) > self.names:
            yield "The x509 Cert Request contains more DNS names than allowed through the config flag"
        if not self.any_name and any(not name.startswith(node) for name in dns):
            yield "The SAN DNS Name in the x509 CSR is not prefixed by the node name (hostname)"
        if any(not re.search(self.pattern, name) for name in dns):
            yield "The SAN DNS name in the x509 CR is not allowed by the Cloud provider regex"
        if dns and not self.without_dns:
            yield UNRESOLVED
        networks = [ip_network(prefix, strict=False) for prefix in self.prefixes]
        for ip in ips:
            if not any(ip_address(ip) in network for network in networks):
                yield f"One of the SAN IP addresses, {ip}, is not part of the allowed IP Prefixes/Subnets"
        if seconds > self.longest:
            yield "CSR spec.expirationSeconds is longer than the maximum allowed expiration second"


def approved_nodes(platform: Platform) -> list[Node]:
    """The nodes whose renewals the approver approves: the workers.

    Where there are none, the control planes: each has the cluster's CA key, and nobody gains anything.
    """
    return [node for node in platform.nodes if node.role == "worker"] or list(platform.nodes)


def problems_of(platform: Platform, requestor: str, node: str, dns: Sequence[str], ips: Sequence[str]) -> Iterator[str]:
    """Why stage 4 does not approve a request: what in it is not the declared node's own.

    Args:
        platform: declares the nodes.
        requestor: the user who filed it.
        node: the name that the certificate would be for.
        dns: its DNS names.
        ips: its addresses.
    """
    declared = next((candidate for candidate in platform.nodes if candidate.name == node), None)
    if declared is None:
        yield f"{node or 'its node'} is not a node of the params"
        return
    if requestor != NODE_PREFIX + node:
        yield f"it was filed by {requestor}, not by the node"
    if foreign := [name for name in dns if name != node]:
        yield f"{', '.join(foreign)} is not a name of {node}"
    if foreign := [ip for ip in ips if ip != str(declared.address)]:
        yield f"{', '.join(foreign)} is not an address of {node}"


def disagreements(platform: Platform, approver: Approver) -> Iterator[str]:
    """Where the approver and stage 4 decide differently about a request, the gravest first.

    That one approved node can get the address or, by a common beginning, the name of another is left out: the approver
    cannot tell them apart.
    """
    owners = {str(node.address): node.name for node in platform.nodes}
    exchangeable = {str(node.address) for node in approved_nodes(platform)}
    network = platform.network
    owners |= {str(network.gateway): "the gateway"} | ({str(network.vip): "the VIP"} if network.vip else {})
    owners.setdefault(str(ip_network(platform.cluster.service_cidr)[1]), "the Service kubernetes")
    spans = [ip_network(prefix, strict=False) for prefix in approver.prefixes]
    edges = [str(span[index]) for span in spans for index in (0, -1)]
    control_planes = {str(node.address) for node in platform.control_planes} - exchangeable
    addresses = sorted(
        {*owners, *edges} - exchangeable, key=lambda ip: (ip not in control_planes, ip not in owners, ip)
    )
    for ip in addresses:
        if not any(approver.problems("node", (), (ip,))):
            yield f"every node can get a certificate for {ip}" + (f", which is {owners[ip]}" if ip in owners else "")
    approved = {node.name for node in approved_nodes(platform)}
    if approver.any_name:
        yield f"every node can get a certificate for the name {min(approved)} (bypassHostnameCheck)"
    for node in platform.nodes:
        strange = [f"{node.name}x", f"{node.name}.example.org", f"x{node.name}"]
        for name in (*(other.name for other in platform.nodes if other != node), *strange):
            if name not in approved and not any(approver.problems(node.name, (name,), ())):
                yield f"{node.name} can get a certificate for the name {name}"
    for node in approved_nodes(platform):
        if problem := next(approver.problems(node.name, (node.name,), (str(node.address),)), ""):
            yield f"{node.name} does not get its own certificate renewed: {problem}"
