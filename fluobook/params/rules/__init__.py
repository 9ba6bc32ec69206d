"""The rules that no single value can check alone: clashes, overlaps, contradictions.

A rule is a function from the platform to problems. To add one, add it to `RULES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.alerts import NOBODY, SEVERITIES
from fluobook.params.problems import clashes
from fluobook.params.rules import availability, network, nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.params.platform import Platform
    from fluobook.params.problems import Problem
    from fluobook.params.versions import Matrix

__all__ = ["RULES", "broken_rules", "warnings"]


def receivers_are_distinct(platform: Platform) -> Iterator[Problem]:
    """Each receiver has a name of its own."""
    owned = [
        (f"platform.alerts.receivers[{index}]", entry.name) for index, entry in enumerate(platform.alerts.receivers)
    ]
    yield from clashes([("Alertmanager's default route", NOBODY), *owned], "give each a name of its own")


RULES: tuple[Callable[[Platform], Iterator[Problem]], ...] = (
    nodes.names_are_unique,
    nodes.identities_are_unique,
    nodes.uuids_are_derived,
    network.networks_do_not_overlap,
    network.networks_are_large_enough,
    network.addresses_have_one_owner,
    network.servers_can_be_reached,
    network.addresses_are_inside_the_network,
    network.ranges_are_in_order,
    network.pools_are_free,
    network.dhcp_range_is_free,
    network.api_address_is_a_control_planes,
    network.layer2_is_there_where_needed,
    network.mesh_can_form,
    network.vxlan_has_its_own_vnet,
    network.packets_fit_through_the_tunnel,
    nodes.control_planes_are_odd,
    nodes.there_are_workers,
    nodes.labels_and_taints_can_be_set,
    nodes.nodes_are_large_enough,
    nodes.workers_have_data_disks,
    nodes.replicas_fit_the_failure_domains,
    nodes.hosts_have_one_endpoint,
    nodes.certificates_have_one_check,
    nodes.mesh_joins_every_host,
    receivers_are_distinct,
)


def broken_rules(platform: Platform, matrix: Matrix) -> Iterator[Problem]:
    """Every problem that the rules and the version matrix find in a platform; a value is a problem to one rule only."""
    refused: set[str] = set()
    for rule in RULES:
        problems = [problem for problem in rule(platform) if problem.path not in refused]
        yield from problems
        refused.update(problem.path for problem in problems)
    yield from nodes.versions_are_compatible(platform, matrix)


def warnings(platform: Platform) -> tuple[str, ...]:
    """What a topology cannot survive, and the alerts that reach nobody, one sentence each."""
    return (*availability.warnings(platform), *unheard(platform))


def unheard(platform: Platform) -> Iterator[str]:
    """A sentence about the severities that nobody receives."""
    heard = {
        severity for entry in platform.alerts.receivers if entry.type != "watchdog" for severity in entry.severities
    }
    if missing := [severity for severity in SEVERITIES if severity not in heard]:
        yield f"nobody receives {' and '.join(missing)} alerts: set alerts.receivers (docs/how-to/alerts.md)"
