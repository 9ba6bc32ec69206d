"""From what answers to what should be: the bundle, and a configuration for each node. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.clients.talos import Mode
from fluobook.errors import ForeignObject, Refused
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from fluobook.params import Node, Platform
    from fluobook.stages.apply_talos_config.observe import Observation

NAME = "apply-talos-config"

SHOWN = 6
"""Changed keys that a plan names."""


def plan(platform: Platform, seen: Observation) -> Plan:
    """The actions of stage 2.

    Raises:
        ForeignObject: a node of another cluster answers at an address of ours.
        Refused: nodes have a configuration, but the secrets bundle that it was made from is not here.
    """
    _nothing_foreign(platform, seen)
    silent = [node.name for node in platform.nodes if seen.mode(node) is Mode.UNREACHABLE]
    actions = [] if seen.bundle else [_bundle()]
    cycled = ""
    for node in platform.nodes:
        if action := _node(platform, node, seen, cycled):
            actions.append(action)
            cycled = action.id if action.system == "cycle" else cycled
    kept = 1 + len(platform.nodes) - len(actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), "create-vms" if silent else "", _notes(seen))


def _nothing_foreign(platform: Platform, seen: Observation) -> None:
    foreign = {n.name: seen.probes[n.name].detail for n in platform.nodes if seen.mode(n) is Mode.FOREIGN}
    if foreign and not seen.bundle:
        raise Refused(
            f"{', '.join(foreign)} have a configuration, but there is no secrets bundle here",
            cause="the bundle was made in another checkout or on another machine; a new one would be another cluster",
            remedy="bring the bundle (secrets.bundle in the params) from where the cluster was made",
        )
    if foreign:
        told = "; ".join(f"{name}: {detail}" for name, detail in foreign.items())
        raise ForeignObject(
            f"a node of another cluster answers: {told}",
            cause="another cluster has this address, or the secrets bundle is not the one this cluster was made with",
            remedy="find out which cluster it is; it is never wiped from here",
        )


def _bundle() -> Action:
    return Action("secrets bundle", "write", "secrets bundle", "encrypted with SOPS, written once", "there is none yet")


def _node(platform: Platform, node: Node, seen: Observation, cycled: str) -> Action | None:
    data = {"node": node.name, "ingredients": seen.ingredients.digest()}
    detail = f"{node.role}, Talos {platform.versions.talos}, Kubernetes {platform.versions.kubernetes}"
    if seen.mode(node) is Mode.CONFIGURED:
        applied = seen.dry_runs[node.name]
        if applied.unchanged:
            return None
        reason = "differs: " + what_differs(applied.details)
        return Action(
            f"apply {node.name}",
            "change",
            f"node {node.name}",
            detail,
            reason,
            (cycled,) if cycled else (),
            "cycle",
            data,
        )
    return Action(
        f"apply {node.name}",
        "apply",
        f"node {node.name}",
        detail,
        "has no configuration",
        ("secrets bundle",),
        "talos",
        data,
    )


def what_differs(details: str) -> str:
    """The keys in the changed lines of a difference; never their values, some of which nobody but the node knows."""
    changed = [
        f"{line[0]} {_key(line[1:])}"
        for line in details.splitlines()
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))
    ]
    shown = list(dict.fromkeys(changed))
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _key(line: str) -> str:
    key, colon, _ = line.strip().removeprefix("- ").partition(":")
    return key if colon else "(an item of a list)"


def _notes(seen: Observation) -> tuple[str, ...]:
    return tuple(f"{name}: {warning}" for name, applied in seen.dry_runs.items() for warning in applied.warnings)
