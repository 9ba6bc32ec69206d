"""What a topology cannot survive. A platform without spare parts is allowed; the warnings name what it would lose.

Networks with public addresses are allowed too; they hide servers on the internet.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform


def warnings(platform: Platform) -> tuple[str, ...]:
    """What is lost when one node, disk or host fails, and what cannot be reached, one sentence each."""
    rules = (_lost_quorum, _single_api_address, _lost_workers, _single_copies, _public_networks)
    return tuple(sentence for rule in rules for sentence in rule(platform))


def _lost_quorum(platform: Platform) -> Iterator[str]:
    """Etcd goes on while more than half of its members run."""
    planes = platform.control_planes
    if len(planes) == 1:
        yield (
            f"{planes[0].name} is the only control plane: while it or host {planes[0].host} is down, so is the"
            " Kubernetes API; if its disk is destroyed, the cluster's state comes back only from an etcd backup"
        )
        return
    for host in platform.hosts:
        count = sum(node.host == host for node in planes)
        if count > (len(planes) - 1) // 2:
            yield (
                f"host {host} has {count} of {len(planes)} control planes: while it is down, etcd has no quorum and the"
                " Kubernetes API does not respond"
            )


def _single_api_address(platform: Platform) -> Iterator[str]:
    planes = platform.control_planes
    owner = next((node.name for node in planes if node.address == platform.api_address), None)
    if owner and len(planes) > 1:
        yield (
            f"the Kubernetes API has only the address of {owner}: while that node is down, clients do not reach the"
            " other control planes; set network.vip, or cluster.api_address to a load balancer's"
        )


def _lost_workers(platform: Platform) -> Iterator[str]:
    workers, domains = platform.workers, platform.failure_domains
    if len(workers) == 1:
        yield f"{workers[0].name} is the only worker: while it is down or upgraded, no workload runs"
    if len(domains) == 1:
        yield f"every worker is on host {domains[0]}: while it is down, no workload runs"


def _single_copies(platform: Platform) -> Iterator[str]:
    possible = len(platform.failure_domains)
    if platform.storage.replicas == 1:
        advice = f"; {possible} hosts have workers, so up to {possible} copies are possible" if possible > 1 else ""
        yield (
            "storage.replicas is 1: a volume is lost with the worker or disk that has its only copy, and comes back"
            f" only from a backup{advice}"
        )


def _public_networks(platform: Platform) -> Iterator[str]:
    networks = {"cluster.pod_cidr": platform.cluster.pod_cidr, "cluster.service_cidr": platform.cluster.service_cidr}
    networks |= {"wireguard.cidr": platform.wireguard.cidr} if platform.wireguard else {}
    for path, cidr in networks.items():
        if IPv4Network(cidr).is_global:
            yield (
                f"{path} {cidr} has public addresses: the platform does not reach servers on the internet that have"
                " them; use a private network, such as 10.244.0.0/16"
            )
