"""How every stage looks at nodes: what answers, and whether it has come to rest."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fluobook.clients.talos import Mode, Probe, probe
from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from fluobook.clients.talos import MachineStage
    from fluobook.params import Node
    from fluobook.stages.core.site import Site

ON_ITS_WAY = 60.0
"""Seconds that a look waits for a node that is just installing or restarting, before it counts as silent."""

AT_REST = ("booting", "running")
"""How far a node has come that will not restart by itself any more; a control plane boots until etcd runs."""


def look(site: Site, node: Node, *, patience: float = 3.0) -> Probe:
    """What answers at a node's address, with our certificates if there are any."""
    if not site.vault.has_bundle():
        return probe(site.talos_address(node), timeout=patience)
    identity = site.vault.talos_identity("os:reader")
    return probe(site.talos_address(node), ca=site.vault.bundle().talos.crt, identity=identity, timeout=patience)


def looks(site: Site) -> dict[str, Probe]:
    """What answers at the addresses of all nodes, by name; see `settled_look`."""
    nodes = site.platform.nodes
    with ThreadPoolExecutor(len(nodes)) as pool:
        return dict(zip([n.name for n in nodes], pool.map(lambda n: settled_look(site, n), nodes), strict=True))


def settled_look(site: Site, node: Node) -> Probe:
    """What answers at a node's address once the node has come to rest.

    A run may begin while nodes still install what a killed run gave them. Without a secrets bundle none has been given
    anything, so there is nothing to wait for; and who was waited for in vain is not waited for again.
    """
    silent: set[str] = site.once("silent nodes", set)
    until = time.monotonic() + ON_ITS_WAY
    while True:
        seen = look(site, node)
        if not site.vault.has_bundle() or _has_settled(site, node, seen) or node.name in silent:
            return seen
        if time.monotonic() > until:
            silent.add(node.name)
            return seen
        site.halt.pause(0.2)


def _has_settled(site: Site, node: Node, seen: Probe) -> bool:
    if seen.mode is not Mode.CONFIGURED:
        return seen.mode is not Mode.UNREACHABLE
    stage = stage_of(site, node)
    return stage is not None and stage.stage in AT_REST


def stage_of(site: Site, node: Node) -> MachineStage | None:
    """How far a configured node has come; None while it does not answer."""
    try:
        return site.talos(node).machine_stage()
    except FluobookError:
        return None


def is_ready(site: Site, node: Node) -> bool:
    """Whether a node runs and says that all is well with it: etcd, kubelet, its place in Kubernetes."""
    if not site.vault.has_bundle():
        return False
    stage = stage_of(site, node)
    return stage is not None and stage.stage == "running" and stage.ready
