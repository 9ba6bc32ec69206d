"""From what runs to what should run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import ForeignObject
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from fluobook.params import Platform
    from fluobook.stages.bootstrap_kubernetes.observe import Observation

NAME = "bootstrap-kubernetes"


def plan(platform: Platform, seen: Observation) -> Plan:
    """The actions of stage 3.

    Raises:
        ForeignObject: control planes run separate etcds.
    """
    _one_etcd(seen)
    actions = [] if seen.bootstrapped else [_bootstrap(platform)]
    actions += [
        _await(node.name, seen)
        for node in platform.nodes
        if not (seen.ready.get(node.name) and node.name in seen.cilium)
    ]
    actions += [_write(name) for name in ("kubeconfig", "talosconfig") if not seen.files.get(name)]
    kept = 1 + len(platform.nodes) + 2 - len(actions)
    waits = "apply-talos-config" if seen.without_config else ""
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits)


def _one_etcd(seen: Observation) -> None:
    clusters = {frozenset(member.id for member in members) for members in seen.members.values()}
    if any(not a & b for a in clusters for b in clusters):
        raise ForeignObject(
            f"control planes run separate etcds: {', '.join(sorted(seen.members))}",
            cause="etcd was bootstrapped on more than one node (F29)",
            remedy="reset the wrong one with `talosctl reset --graceful=false --reboot`; it will join the other",
        )


def _bootstrap(platform: Platform) -> Action:
    first = platform.control_planes[0]
    return Action(
        "bootstrap",
        "bootstrap",
        f"etcd on {first.name}",
        first.address,
        "etcd has no data on any control plane",
        system="talos",
        data={"node": first.name},
    )


def _await(name: str, seen: Observation) -> Action:
    reason = "Kubernetes does not know it yet" if name not in seen.ready else "not Ready"
    needs = () if seen.bootstrapped else ("bootstrap",)
    return Action(
        f"node {name}", "await", f"node {name}", "Ready, with Cilium", reason, needs, "kubernetes", {"node": name}
    )


def _write(name: str) -> Action:
    return Action(
        f"file {name}",
        "write",
        name,
        "readable by its owner alone",
        "missing, or of another cluster",
        data={"file": name},
    )
