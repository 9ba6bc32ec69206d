"""Networks stay apart and are large enough; addresses have one owner and are inside; layer 2 and MTU are sufficient."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fluobook.params.problems import Owned, Problem, clashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import AddressRange, Platform

VXLAN_OVERHEAD, WIREGUARD_OVERHEAD = 50, 80
"""Bytes that VXLAN, and WireGuard over IPv6, add to each packet."""
_VXLAN_PORT = 4789
_VNET = re.compile(r"(?!vmbr\d+$)[A-Za-z][A-Za-z0-9]{1,7}")
_OTHER_INTERFACES = re.compile(r"lo|(bond|en[opsx]|eth|fwbr|fwln|fwpr|tap|veth|vmbr|vxlan)[\w-]*")
"""The names that Linux and Proxmox VE give to interfaces."""
_NODE_PREFIX, _POINT_TO_POINT = 24, 31
_LARGEST_SERVICE_PREFIX, _SMALLEST_SERVICE_PREFIX = 12, 24
_DHCP = "platform.network.dhcp_range"
_GATEWAY = "platform.network.gateway"


def networks_do_not_overlap(platform: Platform) -> Iterator[Problem]:
    """No two networks share an address."""
    networks = {
        "platform.network.cidr": platform.network.cidr,
        "platform.cluster.pod_cidr": platform.cluster.pod_cidr,
        "platform.cluster.service_cidr": platform.cluster.service_cidr,
    }
    if platform.wireguard:
        networks["platform.wireguard.cidr"] = platform.wireguard.cidr
    networks |= _behind_hosts(platform)
    for (first, cidr), (second, other) in combinations(networks.items(), 2):
        if IPv4Network(cidr).overlaps(IPv4Network(other)):
            yield Problem(second, other, f"overlaps {first} {cidr}", "choose private networks that do not overlap")


def networks_are_large_enough(platform: Platform) -> Iterator[Problem]:
    """Every node gets a /24 of the pods' network; the Services' network is what Kubernetes accepts."""
    pods, services = IPv4Network(platform.cluster.pod_cidr), IPv4Network(platform.cluster.service_cidr)
    room = 2 ** (_NODE_PREFIX - pods.prefixlen) if pods.prefixlen <= _NODE_PREFIX else 0
    if room < len(platform.nodes):
        rule, meant = f"has room for {room} nodes of {len(platform.nodes)}", "each node takes a /24 of it"
        yield Problem("platform.cluster.pod_cidr", str(pods), rule, f"{meant}; 10.244.0.0/16 is usual")
    if not _LARGEST_SERVICE_PREFIX <= services.prefixlen <= _SMALLEST_SERVICE_PREFIX:
        rule = f"must have a prefix from /{_LARGEST_SERVICE_PREFIX} to /{_SMALLEST_SERVICE_PREFIX}"
        yield Problem("platform.cluster.service_cidr", str(services), rule, "10.96.0.0/12 is usual")


def addresses_have_one_owner(platform: Platform) -> Iterator[Problem]:
    """No address belongs to two of gateway, VIP and nodes; none but the gateway's is that of a server or a host."""
    meant = "give each its own"
    machines = _machines(platform)
    yield from clashes(machines, meant)
    servers = {address: path for path, address in reversed(_servers(platform))}
    for path, address in machines:
        if address in servers and path != _GATEWAY:
            yield Problem(path, address, f"is used by {servers[address]} already", meant)
    for field in ("address", "public_key", "ssh"):
        yield from clashes([owned for owned in _mesh(platform, field) if owned[1]], meant)
    if mesh := platform.wireguard:
        ports = [mesh.port_of(host) for host in mesh.hosts]
        for port in set(ports):
            endpoints = [owned for owned, own in zip(_mesh(platform, "endpoint"), ports, strict=True) if own == port]
            yield from clashes([owned for owned in endpoints if owned[1]], f"{meant}, or a port of its own")


def servers_can_be_reached(platform: Platform) -> Iterator[Problem]:
    """No server has an address that no machine has, or that exists only inside the cluster or the tunnel."""
    inside = {"platform.cluster.pod_cidr": platform.cluster.pod_cidr}
    inside["platform.cluster.service_cidr"] = platform.cluster.service_cidr
    tunnel = {"platform.wireguard.cidr": platform.wireguard.cidr} if platform.wireguard else {}
    tunnel |= _behind_hosts(platform)
    over_tunnel = platform.wireguard and platform.wireguard.vxlan
    tunnel |= {"platform.network.cidr": platform.network.cidr} if over_tunnel else {}
    repository = ("platform.gitops.repository", urlsplit(platform.gitops.repository).hostname)
    others = [repository, ("platform.cluster.api_address", platform.cluster.api_address)]
    for path, text in [*_servers(platform), *filter(_is_address, others)]:
        if IPv4Address(text) in IPv4Network(platform.network.cidr) and not (over_tunnel and path.endswith(".endpoint")):
            yield from _outside([(path, text)], platform.network.cidr, "platform.network.cidr")
            continue
        for owner, cidr in (inside | tunnel if path.endswith(".endpoint") else inside).items():
            if IPv4Address(text) in IPv4Network(cidr):
                meant = f"give an address outside it: this one exists only inside the {owner.split('.')[1]}"
                yield Problem(path, text, f"is inside {owner} {cidr}", meant)


def addresses_are_inside_the_network(platform: Platform) -> Iterator[Problem]:
    """Gateway, VIP, nodes and ranges are in the nodes' network, tunnel addresses in the tunnel's."""
    yield from _outside([*_machines(platform), *_ends(platform)], platform.network.cidr, "platform.network.cidr")
    if platform.wireguard:
        yield from _outside(_mesh(platform, "address"), platform.wireguard.cidr, "platform.wireguard.cidr")


def ranges_are_in_order(platform: Platform) -> Iterator[Problem]:
    """A range starts before it stops."""
    for path, span in _ranges(platform):
        if IPv4Address(span.start) > IPv4Address(span.stop):
            yield Problem(f"{path}.stop", span.stop, f"comes before its start {span.start}", "exchange the two")


def pools_are_free(platform: Platform) -> Iterator[Problem]:
    """No pool contains the address of a machine or a server, or overlaps another range."""
    wrong = {problem.path.rpartition(".")[0] for problem in _outside(_ends(platform), platform.network.cidr, "")}
    ranges = [(path, span) for path, span in _ranges(platform) if path not in wrong]
    for path, span in ranges:
        owned = [*_machines(platform), *_other_servers(platform)] if path != _DHCP else []
        if inside := [f"{address} of {owner}" for owner, address in owned if _contains(span, address)]:
            more = f", and {len(inside) - 1} more addresses in use" if len(inside) > 1 else ""
            yield Problem(path, _text(span), f"contains {inside[0]}{more}", "shorten the pool or move the address")
    for (first, span), (second, other) in combinations(ranges, 2):
        if _contains(span, other.start) or _contains(other, span.start):
            rule = f"overlaps {first} {_text(span)}"
            yield Problem(second, _text(other), rule, "no address may be assigned twice")


def dhcp_range_is_free(platform: Platform) -> Iterator[Problem]:
    """A DHCP server does not assign the gateway, the VIP, a server's or a node's static address."""
    network = platform.network
    for owner, address in [*_machines(platform), *_other_servers(platform)] if network.dhcp_range else ():
        reserved = network.addressing == "dhcp" and owner.startswith("platform.nodes")
        if network.dhcp_range and _contains(network.dhcp_range, address) and not reserved:
            rule = f"is inside {_DHCP} {_text(network.dhcp_range)}"
            meant = "a DHCP server could assign it to another machine; move one of the two"
            yield Problem(owner, address, rule, meant)


def api_address_is_a_control_planes(platform: Platform) -> Iterator[Problem]:
    """The address of the Kubernetes API is neither a worker's nor the gateway's."""
    api, workers = platform.cluster.api_address, {node.address for node in platform.workers}
    for owner, address in _machines(platform):
        is_worker = owner.startswith("platform.nodes") and address in workers
        if address == api and (is_worker or owner == _GATEWAY):
            yield Problem("platform.cluster.api_address", api, f"is {owner}", "the API runs only on control planes")


def layer2_is_there_where_needed(platform: Platform) -> Iterator[Problem]:
    """A VIP and announced addresses are found by ARP, which ends at a router; announcing needs addresses."""
    network, balancer = platform.network, platform.network.load_balancer
    rule, meant = "needs platform.network.layer2", "a VLAN or VXLAN that joins all hosts, then layer2: true"
    if network.vip and not network.layer2:
        yield Problem("platform.network.vip", network.vip, rule, f"{meant}; or drop vip")
    if balancer.announce and not network.layer2:
        yield Problem(
            "platform.network.load_balancer.announce", balancer.announce, rule, f"{meant}; or announce: false"
        )
    if balancer.announce and not balancer.pools:
        yield Problem("platform.network.load_balancer.pools", (), "is empty, so nothing can be announced", "add a pool")


def mesh_can_form(platform: Platform) -> Iterator[Problem]:
    """Of two hosts one has an endpoint, and no other interface has the tunnel's name."""
    mesh, bridge = platform.wireguard, platform.network.bridge
    if mesh is None:
        return
    hidden = [f"platform.wireguard.hosts.{host.host}.endpoint" for host in mesh.hosts if host.endpoint is None]
    for path in hidden[1:]:
        yield Problem(path, None, f"neither it nor {hidden[0]} can be reached", "one host at most may be behind NAT")
    for host in mesh.hosts:
        if host.endpoint == "localhost":
            path = f"platform.wireguard.hosts.{host.host}.endpoint"
            yield Problem(path, host.endpoint, "is each host itself", "give the address that the other hosts reach")
    if _OTHER_INTERFACES.fullmatch(mesh.interface) or (mesh.vxlan and mesh.interface == bridge):
        rule = "is platform.network.bridge too" if mesh.interface == bridge else "is a name of other interfaces"
        yield Problem("platform.wireguard.interface", mesh.interface, rule, "wgfluo is usual")


def vxlan_has_its_own_vnet(platform: Platform) -> Iterator[Problem]:
    """WireGuard does not use VXLAN's port, and the nodes are in a VNet that can be made."""
    mesh, bridge = platform.wireguard, platform.network.bridge
    if mesh is None or mesh.vxlan is None:
        return
    for host in mesh.hosts:
        if mesh.port_of(host) == mesh.vxlan.port:
            path = f"platform.wireguard.hosts.{host.host}.port" if host.port else "platform.wireguard.port"
            both = [(path, "51820 is usual"), ("platform.wireguard.vxlan.port", "4789 is usual")]
            (wrong, meant), (owner, _) = both if mesh.vxlan.port == _VXLAN_PORT else reversed(both)
            yield Problem(wrong, mesh.vxlan.port, f"is used by {owner} already", meant)
    if not _VNET.fullmatch(bridge):
        rule, meant = (
            "is not the id of a VNet",
            "a letter, then letters and digits, 2 to 8 characters, no bridge's name",
        )
        yield Problem("platform.network.bridge", bridge, f"{rule}, which platform.wireguard.vxlan makes", meant)
    if platform.network.vlan:
        rule = "is a tag on a VNet of platform.wireguard.vxlan, which has none"
        yield Problem("platform.network.vlan", platform.network.vlan, rule, "leave it out")
    if not platform.network.layer2:
        yield Problem("platform.network.layer2", value=False, rule="platform.wireguard.vxlan is one", meant="true")


def packets_fit_through_the_tunnel(platform: Platform) -> Iterator[Problem]:
    """WireGuard drops large packets silently unless the MTU of each layer is small enough."""
    if platform.wireguard is None:
        return
    most = platform.wireguard.underlay_mtu - WIREGUARD_OVERHEAD
    if platform.wireguard.mtu > most:
        rule = f"does not fit through platform.wireguard.underlay_mtu {platform.wireguard.underlay_mtu}"
        meant = f"{most} is the most: the underlay's less {WIREGUARD_OVERHEAD} for WireGuard"
        yield Problem("platform.wireguard.mtu", platform.wireguard.mtu, rule, meant)
    overhead = VXLAN_OVERHEAD if platform.network.layer2 else 0
    largest = platform.wireguard.mtu - overhead
    if platform.network.mtu > largest:
        rule = f"does not fit through platform.wireguard.mtu {platform.wireguard.mtu}"
        meant = f"{largest} is the most" + (f": the tunnel's less {overhead} for VXLAN" if overhead else "")
        yield Problem("platform.network.mtu", platform.network.mtu, rule, meant)


def _machines(platform: Platform) -> list[Owned]:
    network = platform.network
    vip = [("platform.network.vip", network.vip)] if network.vip else []
    nodes = [(f"platform.nodes.{node.name}.address", node.address) for node in platform.nodes]
    return [(_GATEWAY, network.gateway), *vip, *nodes]


def _is_address(owned: Owned) -> bool:
    try:
        return bool(IPv4Address(owned[1]))
    except ValueError:
        return False


def _servers(platform: Platform) -> list[Owned]:
    """The servers that the nodes use and the Proxmox VE hosts, as far as they are given by address."""
    network = platform.network
    servers = [(f"platform.proxmox.{endpoint.name}.url", endpoint.host) for endpoint in platform.proxmox]
    servers += [(f"platform.network.nameservers[{index}]", text) for index, text in enumerate(network.nameservers)]
    servers += [(f"platform.network.ntp[{index}]", text) for index, text in enumerate(network.ntp)]
    return list(filter(_is_address, [*servers, *_mesh(platform, "endpoint")]))


def _other_servers(platform: Platform) -> list[Owned]:
    """The servers that are no machine of the platform, a load balancer for the API among them, each once."""
    machines = {address for _, address in _machines(platform)}
    known = [
        *_servers(platform),
        *filter(_is_address, [("platform.cluster.api_address", platform.cluster.api_address)]),
    ]
    servers = {address: path for path, address in reversed(known) if address not in machines}
    return [(path, address) for address, path in servers.items()]


def _behind_hosts(platform: Platform) -> dict[str, str]:
    """The networks behind hosts of the mesh: WireGuard sends overlapping ones to one host, silently."""
    peers = platform.wireguard.hosts if platform.wireguard else ()
    return {
        f"platform.wireguard.hosts.{peer.host}.networks[{index}]": cidr
        for peer in peers
        for index, cidr in enumerate(peer.networks)
    }


def _mesh(platform: Platform, field: str) -> list[Owned]:
    peers = platform.wireguard.hosts if platform.wireguard else ()
    return [(f"platform.wireguard.hosts.{peer.host}.{field}", getattr(peer, field)) for peer in peers]


def _ranges(platform: Platform) -> list[tuple[str, AddressRange]]:
    network = platform.network
    dhcp = [(_DHCP, network.dhcp_range)] if network.dhcp_range else []
    pools = [(f"platform.network.load_balancer.pools.{pool.name}", pool) for pool in network.load_balancer.pools]
    return [*dhcp, *pools]


def _ends(platform: Platform) -> list[Owned]:
    return [(f"{path}.{end}", getattr(span, end)) for path, span in _ranges(platform) for end in ("start", "stop")]


def _outside(owned: list[Owned], cidr: str, owner: str) -> Iterator[Problem]:
    network = IPv4Network(cidr)
    # A /31 joins two hosts, and both of its addresses are theirs (RFC 3021).
    hosts = list(network) if network.prefixlen >= _POINT_TO_POINT else [network[1], network[-2]]
    meant = f"take one from {hosts[0]} to {hosts[-1]}"
    reserved = {network.network_address: "network", network.broadcast_address: "broadcast"}
    outside = [path for path, text in owned if IPv4Address(text) not in network]
    if len(outside) > max(1, len(owned) // 2):
        rule = f"contains only {len(owned) - len(outside)} of the {len(owned)} addresses that belong in it"
        yield Problem(owner, cidr, rule, f"correct the network; outside it is {outside[0]}, for example")
        return
    for path, text in owned:
        address = IPv4Address(text)
        if address not in network:
            yield Problem(path, text, f"is outside {owner} {cidr}", meant)
        elif address in reserved and address not in hosts:
            yield Problem(path, text, f"is the {reserved[address]} address of {cidr}", meant)


def _contains(span: AddressRange, address: str) -> bool:
    return IPv4Address(span.start) <= IPv4Address(address) <= IPv4Address(span.stop)


def _text(span: AddressRange) -> str:
    return f"{span.start}-{span.stop}"
