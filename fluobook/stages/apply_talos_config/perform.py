"""Does one action of stage 2."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode, maintenance
from fluobook.errors import ForeignObject, Unreachable
from fluobook.stages.apply_talos_config.observe import ingredients_of, look, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Node
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.plan import Action
    from fluobook.stages.core.site import Site


def perform(site: Site, action: Action, tell: Tell) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.id == "secrets bundle":
        site.vault.create_bundle()
        return {"file": site.vault.path.name}
    node = site.platform.node(action.data["node"])
    text = site.once("talos texts", lambda: texts_of(site, ingredients_of(site)))[node.name]
    tell.evidence(config_sha256=hashlib.sha256(text.encode()).hexdigest())
    mode = look(site, node).mode
    applied = _again(site, node, text) if mode is Mode.CONFIGURED else _first(site, node, text, tell)
    tell("installs and restarts")
    site.wait_until("install", f"{node.name} runs with its configuration", lambda: _runs(site, node))
    return applied


def _first(site: Site, node: Node, text: str, tell: Tell) -> Mapping[str, Any]:
    """Give a configuration to a machine that has none, if it is ours.

    Raises:
        ForeignObject: it is not the VM that we made.
    """
    machine = maintenance(site.talos_address(node))
    identity = site.wait_until("maintenance", f"{node.name} tells who it is", machine.identity)
    if wrong := identity.differs_from(uuid=node.uuid, mac=node.mac):
        raise ForeignObject(
            f"the machine at {node.address} is not our VM {node.name}: {'; '.join(wrong)}",
            cause="another machine has this address",
            remedy="give the node another address, or take the other machine off the network; no secret was sent",
        )
    tell.evidence(fingerprint=identity.fingerprint)
    try:
        applied = machine.apply_configuration(text)
    except Unreachable:
        # The answer can be lost because the node restarts at once; whether it took the configuration shows below.
        return {"mode": "unknown"}
    finally:
        machine.close()
    return {"mode": applied.mode}


def _again(site: Site, node: Node, text: str) -> Mapping[str, Any]:
    applied = site.talos(node, "os:admin").apply_configuration(text)
    return {"mode": applied.mode}


def _runs(site: Site, node: Node) -> bool | None:
    """Whether the node answers with this cluster's certificates and is past its installation."""
    if look(site, node).mode is not Mode.CONFIGURED:
        return None
    stage = site.talos(node).machine_stage().stage
    return True if stage in ("booting", "running") else None
