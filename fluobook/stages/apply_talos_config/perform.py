"""Does one action of stage 2."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode
from fluobook.errors import Rejected
from fluobook.stages.apply_talos_config.deliver import Delivery
from fluobook.stages.apply_talos_config.observe import Texts, dry_run, ingredients_of, texts_of
from fluobook.stages.core.cluster import AT_REST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.context import RunContext
    from fluobook.params import Node
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.id == "secrets bundle":
        context.secrets.create_bundle()
        return {"file": context.secrets.path.name}
    node = context.platform.node(action.data["node"])
    text = context.shared(Texts, lambda: texts_of(context, ingredients_of(context)))[node.name]
    report.evidence(config_sha256=hashlib.sha256(text.encode()).hexdigest())
    if context.talos.probe(node).mode is Mode.CONFIGURED:
        return _again(context, node, text, report)
    delivery = Delivery(context, node, text, report)
    what = f"{node.name} runs with its configuration"
    mode = context.wait_until("install", what, delivery.step, final=(Rejected,))
    return {"mode": mode}


def _again(context: RunContext, node: Node, text: str, report: Reporter) -> Mapping[str, Any]:
    """Change the configuration of a configured node; the next node's turn comes when this one is itself again."""
    ready = context.talos.is_ready(node)
    applied = context.wait_until(
        "maintenance",
        f"{node.name} takes its configuration",
        lambda: context.talos.client(node, "os:admin").apply_configuration(text),
        final=(Rejected,),
    )
    report.evidence(mode=applied.mode)
    report("takes it over")
    context.wait_until(
        "install", f"{node.name} runs with its configuration", lambda: _is_itself(context, node, text, ready=ready)
    )
    return {"mode": applied.mode}


def _is_itself(context: RunContext, node: Node, text: str, *, ready: bool) -> bool | None:
    """Whether a node has taken a configuration over, has come to rest, and is as ready as it was before."""
    applied, _ = dry_run(context, node, text)
    stage = context.talos.machine_stage(node)
    at_rest = stage is not None and stage.stage in AT_REST
    return True if applied.unchanged and at_rest and (context.talos.is_ready(node) or not ready) else None
