"""Addresses in the nodes' network: one owner each, inside the network, and outside every range that others use."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING

from fluobook.params.problems import Problem
from fluobook.params.rules.uniqueness import Owned, clashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.network import AddressRange
    from fluobook.params.platform import Platform

_DHCP = "platform.network.dhcp_range"
_GATEWAY = "platform.network.gateway"


def addresses_have_one_owner(platform: Platform) -> Iterator[Problem]:
    """No address belongs to two of gateway, VIP and nodes; none of them is a Proxmox VE host's, but for the gateway."""
    machines = _machines(platform)
    yield from clashes(machines, "give each its own")
    endpoints = {endpoint.host: f"platform.proxmox.{endpoint.name}.url" for endpoint in platform.proxmox}
    for path, address in machines:
        if address in endpoints and path != _GATEWAY:
            yield Problem(path, address, f"is used by {endpoints[address]} already", "give each its own")
    mesh = platform.wireguard.hosts if platform.wireguard else ()
    yield from clashes(
        [(f"platform.wireguard.hosts.{it.host}.address", it.address) for it in mesh], "give each its own"
    )
    yield from clashes(
        [(f"platform.wireguard.hosts.{it.host}.endpoint", it.endpoint) for it in mesh], "give each its own"
    )


def addresses_are_inside_the_network(platform: Platform) -> Iterator[Problem]:
    """Gateway, VIP and nodes are hosts of the nodes' network, tunnel addresses of the tunnel's, ranges of theirs."""
    network = platform.network
    ranges = [(f"{path}.{end}", getattr(span, end)) for path, span in _ranges(platform) for end in ("start", "stop")]
    yield from _outside([*_machines(platform), *ranges], network.cidr, "platform.network.cidr")
    if platform.wireguard:
        mesh = [(f"platform.wireguard.hosts.{it.host}.address", it.address) for it in platform.wireguard.hosts]
        yield from _outside(mesh, platform.wireguard.cidr, "platform.wireguard.cidr")


def ranges_are_in_order(platform: Platform) -> Iterator[Problem]:
    """A range starts before it stops."""
    for path, span in _ranges(platform):
        if IPv4Address(span.start) > IPv4Address(span.stop):
            yield Problem(f"{path}.stop", span.stop, f"comes before its start {span.start}", "exchange the two")


def pools_are_free(platform: Platform) -> Iterator[Problem]:
    """No pool holds the address of a machine, or reaches into another range."""
    pools = [(path, span) for path, span in _ranges(platform) if path != _DHCP]
    for path, span in pools:
        for owner, address in _machines(platform):
            if _holds(span, address):
                yield Problem(path, _text(span), f"holds {address} of {owner}", "shorten the pool or move the address")
    for (first, one), (second, other) in combinations(_ranges(platform), 2):
        if _holds(one, other.start) or _holds(other, one.start):
            yield Problem(second, _text(other), f"overlaps {first} {_text(one)}", "no address may be given out twice")


def dhcp_range_is_free(platform: Platform) -> Iterator[Problem]:
    """A DHCP server does not hand out the gateway, the VIP, or a node's static address."""
    network = platform.network
    if network.dhcp_range is None:
        return
    for owner, address in _machines(platform):
        reserved = network.addressing == "dhcp" and owner.startswith("platform.nodes")
        if _holds(network.dhcp_range, address) and not reserved:
            rule = f"is inside {_DHCP} {_text(network.dhcp_range)}"
            yield Problem(owner, address, rule, "a DHCP server could give it to another machine; move one of the two")


def api_address_is_a_control_planes(platform: Platform) -> Iterator[Problem]:
    """The Kubernetes API is not looked for at a worker or at the gateway."""
    address = platform.cluster.api_address
    for owner, taken in _machines(platform):
        is_worker = owner.startswith("platform.nodes") and taken in {node.address for node in platform.workers}
        if taken == address and (is_worker or owner == _GATEWAY):
            yield Problem(
                "platform.cluster.api_address", address, f"is {owner}", "the API runs on control planes alone"
            )


def _machines(platform: Platform) -> list[Owned]:
    network = platform.network
    vip = [("platform.network.vip", network.vip)] if network.vip else []
    nodes = [(f"platform.nodes.{node.name}.address", node.address) for node in platform.nodes]
    return [(_GATEWAY, network.gateway), *vip, *nodes]


def _ranges(platform: Platform) -> list[tuple[str, AddressRange]]:
    network = platform.network
    dhcp = [(_DHCP, network.dhcp_range)] if network.dhcp_range else []
    pools = [(f"platform.network.load_balancer.pools.{pool.name}", pool) for pool in network.load_balancer.pools]
    return [*dhcp, *pools]


def _outside(owned: list[Owned], cidr: str, named: str) -> Iterator[Problem]:
    network = IPv4Network(cidr)
    for path, address in owned:
        if IPv4Address(address) not in network:
            yield Problem(path, address, f"is outside {named} {cidr}", f"take one from {network[1]} to {network[-2]}")
        elif IPv4Address(address) in {network.network_address, network.broadcast_address}:
            which = "network" if IPv4Address(address) == network.network_address else "broadcast"
            yield Problem(
                path, address, f"is the {which} address of {cidr}", f"take one from {network[1]} to {network[-2]}"
            )


def _holds(span: AddressRange, address: str) -> bool:
    return IPv4Address(span.start) <= IPv4Address(address) <= IPv4Address(span.stop)


def _text(span: AddressRange) -> str:
    return f"{span.start}-{span.stop}"
