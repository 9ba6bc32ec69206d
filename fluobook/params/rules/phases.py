"""What each phase is, so that a file cannot call itself what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Params

_HA_CONTROL_PLANES = 3


def phase_contradictions(params: Params) -> Iterator[Problem]:
    """Every contradiction between the phase that a file claims and the platform that it describes."""
    return _several_hosts(params) if params.phase == "phase3" else _one_host(params)


def _one_host(params: Params) -> Iterator[Problem]:
    phase, platform = params.phase, params.platform
    if len(platform.hosts) > 1:
        rule = f"{phase} has one host, the nodes stand on {', '.join(platform.hosts)}"
        yield Problem("phase", phase, rule, "phase3 is for several hosts")
    if platform.storage.replicas != 1:
        rule = f"{phase} has one host, so one copy of a volume"
        yield Problem("platform.storage.replicas", platform.storage.replicas, rule, "set it to 1")
    if platform.wireguard:
        rule = f"{phase} has one host, so no mesh between hosts"
        yield Problem("platform.wireguard", {}, rule, "set it to null; phase3 is for several hosts")


def _several_hosts(params: Params) -> Iterator[Problem]:
    platform = params.platform
    if len(platform.hosts) == 1:
        yield Problem("phase", params.phase, "has one host only", "spread the nodes, or call it phase2")
    if len(platform.control_planes) < _HA_CONTROL_PLANES:
        found = len(platform.control_planes)
        yield Problem(
            "platform.nodes", f"{found} control planes", "phase3 is highly available", "three control planes at least"
        )
    if not platform.network.vip and not platform.cluster.api_address:
        meant = "set it, or name a load balancer by platform.cluster.api_address"
        yield Problem(
            "platform.network.vip", None, "phase3 reaches the API through an address that survives a host", meant
        )
    if len(platform.failure_domains) > 1 and platform.storage.replicas == 1:
        meant = f"as many as there are failure domains, up to {len(platform.failure_domains)}"
        yield Problem("platform.storage.replicas", 1, "phase3 keeps volumes through the loss of a host", meant)
