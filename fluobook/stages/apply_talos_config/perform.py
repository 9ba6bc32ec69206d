"""Does one action of stage 2."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode
from fluobook.errors import Rejected
from fluobook.stages.apply_talos_config.deliver import Delivery
from fluobook.stages.apply_talos_config.observe import dry_run, ingredients_of, texts_of
from fluobook.stages.core.nodes import AT_REST, is_ready, look, stage_of

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
    if look(site, node).mode is Mode.CONFIGURED:
        return _again(site, node, text, tell)
    delivery = Delivery(site, node, text, tell)
    what = f"{node.name} runs with its configuration"
    mode = site.wait_until("install", what, delivery.step, final=(Rejected,))
    return {"mode": mode}


def _again(site: Site, node: Node, text: str, tell: Tell) -> Mapping[str, Any]:
    """Change the configuration of a configured node; the next node's turn comes when this one is itself again."""
    ready = is_ready(site, node)
    applied = site.wait_until(
        "maintenance",
        f"{node.name} takes its configuration",
        lambda: site.talos(node, "os:admin").apply_configuration(text),
        final=(Rejected,),
    )
    tell.evidence(mode=applied.mode)
    tell("takes it over")
    site.wait_until(
        "install", f"{node.name} runs with its configuration", lambda: _is_itself(site, node, text, ready=ready)
    )
    return {"mode": applied.mode}


def _is_itself(site: Site, node: Node, text: str, *, ready: bool) -> bool | None:
    """Whether a node has taken a configuration over, has come to rest, and is as ready as it was before."""
    applied, _ = dry_run(site, node, text)
    stage = stage_of(site, node)
    at_rest = stage is not None and stage.stage in AT_REST
    return True if applied.unchanged and at_rest and (is_ready(site, node) or not ready) else None
