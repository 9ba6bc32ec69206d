"""How every stage looks at nodes: what answers, and whether it has come to rest."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fluobook.clients.talos import Mode, Probe, probe
from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from fluobook.clients.talos import MachineStage
    from fluobook.context import RunContext
    from fluobook.params import Node

ON_ITS_WAY = 60.0
"""Seconds that a look waits for a node that is just installing or restarting, before it counts as silent."""

AT_REST = ("booting", "running")
"""How far a node has come that will not restart by itself any more; a control plane boots until etcd runs."""


def look(context: RunContext, node: Node, *, patience: float = 3.0) -> Probe:
    """What answers at a node's address, with our certificates if there are any."""
    if not context.secrets.has_bundle():
        return probe(context.talos_address(node), timeout=patience)
    identity = context.secrets.talos_identity("os:reader")
    return probe(
        context.talos_address(node), ca=context.secrets.bundle().talos.crt, identity=identity, timeout=patience
    )


def looks(context: RunContext) -> dict[str, Probe]:
    """What answers at the addresses of all nodes, by name; see `settled_look`."""
    nodes = context.platform.nodes
    with ThreadPoolExecutor(len(nodes)) as pool:
        return dict(zip([n.name for n in nodes], pool.map(lambda n: settled_look(context, n), nodes), strict=True))


def settled_look(context: RunContext, node: Node) -> Probe:
    """What answers at a node's address once the node has come to rest.

    A run may begin while nodes still install what a killed run gave them. Without a secrets bundle none has been given
    anything, so there is nothing to wait for; and who was waited for in vain is not waited for again.
    """
    silent: set[str] = context.once("silent nodes", set)
    until = time.monotonic() + ON_ITS_WAY
    while True:
        seen = look(context, node)
        if not context.secrets.has_bundle() or _has_settled(context, node, seen) or node.name in silent:
            return seen
        if time.monotonic() > until:
            silent.add(node.name)
            return seen
        context.cancellation.pause(0.2)


def _has_settled(context: RunContext, node: Node, seen: Probe) -> bool:
    if seen.mode is not Mode.CONFIGURED:
        return seen.mode is not Mode.UNREACHABLE
    stage = stage_of(context, node)
    return stage is not None and stage.stage in AT_REST


def stage_of(context: RunContext, node: Node) -> MachineStage | None:
    """How far a configured node has come; None while it does not answer."""
    try:
        return context.talos(node).machine_stage()
    except FluobookError:
        return None


def is_ready(context: RunContext, node: Node) -> bool:
    """Whether a node runs and says that all is well with it: etcd, kubelet, its place in Kubernetes."""
    if not context.secrets.has_bundle():
        return False
    stage = stage_of(context, node)
    return stage is not None and stage.stage == "running" and stage.ready
