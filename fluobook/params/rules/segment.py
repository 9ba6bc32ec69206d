"""What needs one layer-2 segment, and what fits through a tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform

VXLAN_OVERHEAD = 50
"""Bytes that VXLAN adds to each packet."""


def layer2_carries_what_needs_it(platform: Platform) -> Iterator[Problem]:
    """A VIP and announced addresses are found by ARP, which ends at a router; announcing needs addresses."""
    network = platform.network
    balancer = network.load_balancer
    meant = "a VLAN or VXLAN that joins all hosts, then layer2: true"
    if network.vip and not network.layer2:
        yield Problem("platform.network.vip", network.vip, "needs platform.network.layer2", meant)
    if balancer.announce and not network.layer2:
        yield Problem("platform.network.load_balancer.announce", True, "needs platform.network.layer2", meant)  # noqa: FBT003
    if balancer.announce and not balancer.pools:
        yield Problem("platform.network.load_balancer.pools", (), "is empty, so nothing can be announced", "add a pool")


def packets_fit_through_the_tunnel(platform: Platform) -> Iterator[Problem]:
    """Behind WireGuard, large packets are lost without a word unless the nodes' MTU is small enough."""
    if platform.wireguard is None:
        return
    overhead = VXLAN_OVERHEAD if platform.network.layer2 else 0
    largest = platform.wireguard.mtu - overhead
    if platform.network.mtu > largest:
        rule = f"does not fit through platform.wireguard.mtu {platform.wireguard.mtu}"
        through = f"{largest} is the most" + (f": the tunnel's less {overhead} for VXLAN" if overhead else "")
        yield Problem("platform.network.mtu", platform.network.mtu, rule, through)
