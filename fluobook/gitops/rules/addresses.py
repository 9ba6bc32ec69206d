"""Which pool serves which Service: one and only one, with addresses that nothing else has, announced as it must be."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from fluobook.errors import ParamsError
from fluobook.gitops.rules.pools import blocks_of, span_of
from fluobook.kubernetes.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look
    from fluobook.params import Platform

_PINS = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
POOL = "fluobook/pool"
"""The label by which a Service asks for a pool."""
_ANNOUNCER = "io.cilium/l2-announcer"


def services_get_an_address(look: Look) -> Iterator[Finding]:
    """Each LoadBalancer has one pool and can be announced; each pool has a Service, and no address of a node."""
    pools = [one for _, one in look.deployed if one.kind == "CiliumLoadBalancerIPPool"]
    services = [one for _, one in look.deployed if _is_balanced(one)]
    for service in services:
        yield from _of_service(look, service, [pool for pool in pools if _serves(pool, service)])
    for pool in pools:
        yield from _taken(look, pool)
        selector: dict[str, Any] | None = (pool.data.get("spec") or {}).get("serviceSelector")
        wanted = list((selector or {}).get("matchLabels") or ())
        if selector is None and len(pools) > 1:
            yield look.at(pool, "metadata", "name").finding(
                "address", f"pool {pool.name} serves every Service, the other pools' too", "give it a serviceSelector"
            )
        elif wanted and not any(_serves(pool, service) for service in services):
            yield look.at(pool, "spec", "serviceSelector", "matchLabels", wanted[0]).finding(
                "address", f"pool {pool.name} serves no Service of the tree", "correct its selector"
            )
    for policy in (one for _, one in look.deployed if one.kind == "CiliumL2AnnouncementPolicy"):
        yield from _of_policy(look, policy)


def _is_balanced(document: Document) -> bool:
    spec = document.data.get("spec") or {}
    return document.kind == "Service" and not document.group and spec.get("type") == "LoadBalancer"


def _serves(pool: Document, service: Document) -> bool:
    labels = (service.data.get("metadata") or {}).get("labels") or {}
    return matches((pool.data.get("spec") or {}).get("serviceSelector") or {}, labels)


def _of_service(look: Look, service: Document, pools: list[Document]) -> Iterator[Finding]:
    def told(message: str, remedy: str, *path: Key) -> Finding:
        return look.at(service, *path).finding("address", f"Service {service.name} {message}", remedy)

    spec = service.data["spec"]
    if len(pools) != 1:
        names = " and ".join(pool.name for pool in pools) or "no pool"
        yield told(f"is served by {names}", "give it the label of one pool", "metadata", "labels", POOL)
    elif POOL not in (service.data["metadata"].get("labels") or {}):
        remedy = "label it fluobook/pool: NAME; what has no label shares the ingress's pool"
        yield told(f"does not say that it wants pool {pools[0].name}", remedy, "metadata", "name")
    pins: list[tuple[str, ...]] = [("metadata", "annotations", key) for key in _PINS if key in service.annotations]
    pins += [("spec", "loadBalancerIP")] if "loadBalancerIP" in spec else []
    for path in pins:
        text = str(service.annotations[path[-1]] if path[0] == "metadata" else spec["loadBalancerIP"])
        if strays := [one for one in text.split(",") if not any(_has(pool, one.strip()) for pool in pools)]:
            yield told(f"asks for {strays[0]}, which is not in its pool", "take an address of its pool", *path)
    if spec.get("loadBalancerClass", _ANNOUNCER) != _ANNOUNCER:
        yield told("has a class that nobody here serves", f"leave it out, or {_ANNOUNCER}", "spec", "loadBalancerClass")
    if spec.get("externalTrafficPolicy") == "Local":
        remedy = "leave it Cluster: Cilium's L2 announcements cannot do Local"
        yield told("is reachable only where its pods happen to be", remedy, "spec", "externalTrafficPolicy")


def _has(pool: Document, address: str) -> bool:
    try:
        number = int(IPv4Address(address))
    except ValueError:
        return False
    spans = [span for block in blocks_of(pool) if (span := span_of(block))]
    return any(first <= number <= last for first, last in spans)


def _taken(look: Look, pool: Document) -> Iterator[Finding]:
    """Addresses of nodes, the gateway and the VIP, in the phases whose network the pool is in."""
    for index, block in enumerate(blocks_of(pool)):
        span = span_of(block)
        owners = [
            owner
            for loaded in look.phases.values()
            if not isinstance(loaded, ParamsError)
            for owner in _owners(loaded.platform).items()
        ]
        hits = [name for address, name in owners if span and span[0] <= int(IPv4Address(address)) <= span[1]]
        if hits:
            message = f"pool {pool.name} has the address of {hits[0]}"
            yield look.at(pool, "spec", "blocks", index).finding("address", message, "take addresses that are free")


def _owners(platform: Platform) -> dict[str, str]:
    network = platform.network
    inside = IPv4Network(str(network.cidr))
    found = {str(network.gateway): "the gateway"} | ({str(network.vip): "the VIP"} if network.vip else {})
    found |= {str(node.address): node.name for node in platform.nodes}
    return {address: name for address, name in found.items() if IPv4Address(address) in inside}


def _of_policy(look: Look, policy: Document) -> Iterator[Finding]:
    spec: dict[str, Any] = policy.data.get("spec") or {}
    if not (spec.get("loadBalancerIPs") or spec.get("externalIPs")):
        yield look.at(policy, "spec", "loadBalancerIPs").finding(
            "address", f"{policy.name} announces nothing", "set loadBalancerIPs to true"
        )
    for index, pattern in enumerate(spec.get("interfaces") or ()):
        try:
            re.compile(pattern)
        except (re.error, TypeError):
            yield look.at(policy, "spec", "interfaces", index).finding(
                "address", f"{policy.name}: {pattern} is no regular expression", "correct it"
            )
