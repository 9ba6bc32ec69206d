"""How Talos chooses among a node's addresses by lists of subnets, such as the kubelet's `nodeIP.validSubnets`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def lets_through(subnets: Iterable[str], address: str) -> bool:
    """Whether subnets let an address through: it is in one of them, and in none that begins with `!`; none let all in.

    Raises:
        ValueError: one is no subnet.
    """
    told = [str(subnet) for subnet in subnets]
    hits = {one: ip_address(address) in ip_network(one.lstrip("!"), strict=False) for one in told}
    chosen = any(hit for one, hit in hits.items() if not one.startswith("!"))
    return not told or (chosen and not any(hit for one, hit in hits.items() if one.startswith("!")))
