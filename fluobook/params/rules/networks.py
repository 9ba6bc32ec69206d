"""Networks: pods, Services, nodes and tunnels stay apart, and each is large enough."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING

from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform

_NODE_PREFIX = 24
_LARGEST_SERVICE_PREFIX, _SMALLEST_SERVICE_PREFIX = 12, 24


def networks_do_not_overlap(platform: Platform) -> Iterator[Problem]:
    """No two networks share an address."""
    networks = {
        "platform.network.cidr": platform.network.cidr,
        "platform.cluster.pod_cidr": platform.cluster.pod_cidr,
        "platform.cluster.service_cidr": platform.cluster.service_cidr,
    }
    if platform.wireguard:
        networks["platform.wireguard.cidr"] = platform.wireguard.cidr
    for (first, one), (second, other) in combinations(networks.items(), 2):
        if IPv4Network(one).overlaps(IPv4Network(other)):
            yield Problem(second, other, f"overlaps {first} {one}", "take private networks that stay apart")


def networks_are_large_enough(platform: Platform) -> Iterator[Problem]:
    """Every node gets a /24 of the pods' network; the Services' network is what Kubernetes accepts."""
    pods, services = IPv4Network(platform.cluster.pod_cidr), IPv4Network(platform.cluster.service_cidr)
    for_nodes = 2 ** (_NODE_PREFIX - pods.prefixlen) if pods.prefixlen <= _NODE_PREFIX else 0
    if for_nodes < len(platform.nodes):
        rule = f"has room for {for_nodes} nodes of {len(platform.nodes)}"
        yield Problem(
            "platform.cluster.pod_cidr", str(pods), rule, "each node takes a /24 of it; 10.244.0.0/16 is usual"
        )
    if not _LARGEST_SERVICE_PREFIX <= services.prefixlen <= _SMALLEST_SERVICE_PREFIX:
        rule = f"must have a prefix from /{_LARGEST_SERVICE_PREFIX} to /{_SMALLEST_SERVICE_PREFIX}"
        yield Problem("platform.cluster.service_cidr", str(services), rule, "10.96.0.0/12 is usual")
