"""LoadBalancer addresses: no address is in two pools, and no Service may be served by two of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

Span = tuple[int, int]


def pools_are_disjoint(look: Look) -> Iterator[Finding]:
    """No two blocks share an address, and each ends where it should, inside the network of a phase."""
    pools = [document for document in look.documents if document.kind == "CiliumLoadBalancerIPPool"]
    blocks = [(pool, index, span_of(block)) for pool in pools for index, block in enumerate(blocks_of(pool))]
    networks = [(int(one[0]), int(one[-1])) for one in look.networks]
    for pool, index, span in blocks:
        if span is None or span[0] > span[1]:
            yield _at(look, pool, index, f"pool {pool.name} has a block that is none", "give start and stop, or cidr")
        elif networks and not any(first <= span[0] and span[1] <= last for first, last in networks):
            known = ", ".join(map(str, look.networks))
            message = f"pool {pool.name} has {IPv4Address(span[0])}, which is in no phase's network"
            yield _at(look, pool, index, message, f"take addresses of {known}")
    sound = [(pool, index, span) for pool, index, span in blocks if span]
    for (one, _, a), (other, index, b) in combinations(sound, 2):
        if a[0] <= b[1] and b[0] <= a[1]:
            shared = IPv4Address(max(a[0], b[0]))
            yield _at(look, other, index, f"pools {one.name} and {other.name} both have {shared}", "move one of them")


def _at(look: Look, pool: Document, index: int, message: str, remedy: str) -> Finding:
    return look.at(pool, "spec", "blocks", index).finding("pool", message, remedy)


def blocks_of(pool: Document) -> list[dict[str, Any]]:
    """The blocks of a pool, as they stand."""
    return (pool.data.get("spec") or {}).get("blocks") or []


def span_of(block: dict[str, Any]) -> Span | None:
    """The first and the last address of a block, as numbers; None for what is no block."""
    try:
        if "cidr" in block:
            network = ip_network(block["cidr"], strict=False)
            return (int(network[0]), int(network[-1])) if isinstance(network, IPv4Network) else None
        return int(ip_address(block["start"])), int(ip_address(block.get("stop", block["start"])))
    except (KeyError, ValueError):
        return None
