"""Hosts: each behind one endpoint, whose certificate is checked in one way, and all of them in the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.problems import Problem, did_you_mean
from fluobook.params.rules.uniqueness import clashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform


def hosts_have_one_endpoint(platform: Platform) -> Iterator[Problem]:
    """A node's host is known, and no host belongs to two endpoints."""
    owned = [
        (f"platform.proxmox.{endpoint.name}.hosts[{index}]", host)
        for endpoint in platform.proxmox
        for index, host in enumerate(endpoint.hosts)
    ]
    yield from clashes(owned, "a host belongs to exactly one endpoint")
    known = {host for _, host in owned}
    for node in platform.nodes:
        if node.host not in known:
            path = f"platform.nodes.{node.name}.host"
            yield Problem(
                path, node.host, "is a host of no endpoint in platform.proxmox", did_you_mean(node.host, known)
            )


def trust_has_one_source(platform: Platform) -> Iterator[Problem]:
    """A certificate is checked by its CA or by its fingerprint, not by both."""
    for endpoint in platform.proxmox:
        if endpoint.ca_file and endpoint.fingerprint:
            path = f"platform.proxmox.{endpoint.name}.fingerprint"
            yield Problem(path, endpoint.fingerprint, "stands beside ca_file", "keep one of the two")


def mesh_joins_every_host(platform: Platform) -> Iterator[Problem]:
    """A mesh names only hosts that exist, and leaves none out on which nodes stand."""
    if platform.wireguard is None:
        return
    known = {host for endpoint in platform.proxmox for host in endpoint.hosts}
    joined = {peer.host for peer in platform.wireguard.hosts}
    for host in sorted(joined - known):
        path = f"platform.wireguard.hosts.{host}.host"
        yield Problem(path, host, "is a host of no endpoint in platform.proxmox", did_you_mean(host, known))
    for host in platform.hosts if joined <= known else ():
        if host in known - joined:
            yield Problem("platform.wireguard.hosts", host, "has nodes but is not in the mesh", "add it")
