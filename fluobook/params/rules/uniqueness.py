"""What may exist only once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.params.derive import uuid_of
from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook.params.platform import Platform

Owned = tuple[str, Any]
"""A dotted path, and the value that stands there."""


def clashes(owned: Iterable[Owned], meant: str) -> Iterator[Problem]:
    """A problem for each value that has a second owner; both are named."""
    owners: dict[Any, str] = {}
    for path, value in owned:
        if value in owners:
            yield Problem(path, value, f"is used by {owners[value]} already", meant)
        owners.setdefault(value, path)


def names_are_unique(platform: Platform) -> Iterator[Problem]:
    """Nodes, endpoints, pools and hosts of a mesh are listed once each, and no URL has two endpoints."""
    network = platform.network.load_balancer.pools
    mesh = platform.wireguard.hosts if platform.wireguard else ()
    lists = {
        "nodes": [node.name for node in platform.nodes],
        "proxmox": [endpoint.name for endpoint in platform.proxmox],
        "network.load_balancer.pools": [pool.name for pool in network],
        "wireguard.hosts": [peer.host for peer in mesh],
    }
    for where, names in lists.items():
        owned = [(f"platform.{where}[{index}]", name) for index, name in enumerate(names)]
        yield from clashes(owned, "give each a name of its own")
    urls = [(f"platform.proxmox.{endpoint.name}.url", endpoint.url) for endpoint in platform.proxmox]
    yield from clashes(urls, "make one endpoint of the two, with the hosts of both")


def identities_are_unique(platform: Platform) -> Iterator[Problem]:
    """No VM id and no MAC address, pinned or derived, belongs to two nodes."""
    vmids = [(f"platform.nodes.{node.name}.vmid", node.vmid) for node in platform.nodes]
    macs = [(f"platform.nodes.{node.name}.mac", node.mac) for node in platform.nodes]
    yield from clashes(vmids, "pin another vmid for one of the two")
    yield from clashes(macs, "pin another mac for one of the two")


def uuids_are_derived(platform: Platform) -> Iterator[Problem]:
    """Nobody sets the uuid by which VMs are known as ours."""
    for node in platform.nodes:
        if node.uuid != uuid_of(platform.cluster.name, node.name):
            yield Problem(
                f"platform.nodes.{node.name}.uuid", node.uuid, "follows from cluster and node name", "leave it out"
            )
