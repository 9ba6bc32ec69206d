"""The rules that no single value can keep alone: what clashes, what overlaps, what contradicts.

A rule is a function from the platform to the problems it finds; adding one means adding it to `RULES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.rules import addresses, hosts, networks, nodes, segment, uniqueness
from fluobook.params.rules.phases import phase_contradictions
from fluobook.params.rules.versions import versions_go_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.params.platform import Platform
    from fluobook.params.problems import Problem
    from fluobook.params.versions import Matrix

__all__ = ["RULES", "broken_rules", "phase_contradictions"]

RULES: tuple[Callable[[Platform], Iterator[Problem]], ...] = (
    uniqueness.names_are_unique,
    uniqueness.identities_are_unique,
    uniqueness.uuids_are_derived,
    networks.networks_do_not_overlap,
    networks.networks_are_large_enough,
    addresses.addresses_have_one_owner,
    addresses.addresses_are_inside_the_network,
    addresses.ranges_are_in_order,
    addresses.pools_are_free,
    addresses.dhcp_range_is_free,
    addresses.api_address_is_a_control_planes,
    segment.layer2_carries_what_needs_it,
    segment.packets_fit_through_the_tunnel,
    nodes.control_planes_are_odd,
    nodes.there_are_workers,
    nodes.nodes_are_large_enough,
    nodes.workers_have_data_disks,
    nodes.replicas_fit_the_failure_domains,
    hosts.hosts_have_one_endpoint,
    hosts.trust_has_one_source,
    hosts.mesh_joins_every_host,
)


def broken_rules(platform: Platform, matrix: Matrix) -> Iterator[Problem]:
    """Every problem that the rules and the version matrix find in a platform."""
    for rule in RULES:
        yield from rule(platform)
    yield from versions_go_together(platform, matrix)
