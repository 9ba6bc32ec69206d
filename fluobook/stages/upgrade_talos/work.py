"""Fetch, drain, install, restart and check one node; each action can be killed and done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fluobook.context import RunContext
from fluobook.errors import PHASE, TaskFailed
from fluobook.params import Node
from fluobook.stages import health
from fluobook.stages.core import canary, drain
from fluobook.stages.core.check import Check, count, run_groups
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.upgrade_talos.plan import NAME, Observation, read_running, wanted_image


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "check":
        health.wait_between(context, report)
        return None
    node = context.platform.node(action.data["node"])
    if action.verb == "pull":
        context.talos.client(node, "os:operator").pull(action.data["image"], timeout=context.platform.deadlines.upgrade)
        return None
    if action.verb == "drain":
        return _drain(context, node, report)
    if action.verb == "upgrade":
        return _upgrade(context, node, action.data["image"], report)
    ready(context, node)
    if action.verb == "attach":
        return canary.prove(context, node.name, report)
    drain.uncordon(context.kube(), node.name)
    return None


def _drain(context: RunContext, node: Node, report: Reporter) -> Mapping[str, Any]:
    """Move etcd's leader away, cordon, evict."""
    if node.role == "controlplane" and len(context.platform.control_planes) > 1:
        leader = context.talos.client(node, "os:admin").forfeit_leadership()
        report.evidence(leader=leader or "another member")
    drain.cordon(context.kube(), node.name, NAME)
    return {"evicted": drain.drain(context, node.name, report)}


def _upgrade(context: RunContext, node: Node, image: str, report: Reporter) -> Mapping[str, Any]:
    """Install beside the running image, restart, and wait for the wanted image to run.

    Raises:
        TaskFailed: the installer failed, or the node has fallen back to the image before. It stays cordoned.
    """
    limit, wanted = context.platform.deadlines.upgrade, wanted_image(context)
    runs = read_running(context, node)
    if runs is None or not runs.installed(wanted):
        client = context.talos.client(node, "os:admin")
        report("fetches the image")
        client.pull(image, timeout=limit)
        report("installs")
        client.install(image, timeout=limit)
        before = client.boot_id()
        report("restarts")
        client.reboot()
        restarted(context, node, before)
    ready(context, node)
    runs = read_running(context, node)
    if runs is None or not runs.installed(wanted):
        version = runs.version if runs else "nothing that answers"
        raise TaskFailed(
            f"{node.name} runs {version} after its restart, not v{wanted.version}",
            system="talos",
            cause="the new image did not boot, and Talos fell back to the one before",
            remedy=f"check the console of the VM {node.name}; the node is still cordoned; then run {NAME} again",
            facts={"address": node.address},
        )
    return {"version": runs.version, "schematic": runs.schematic[:12]}


def restarted(context: RunContext, node: Node, before: str) -> None:
    """Wait until the node has another boot id."""

    def step() -> bool | None:
        return True if context.talos.client(node, "os:admin").boot_id() not in ("", before) else None

    context.wait_until("upgrade", f"{node.name} to restart", step)


def ready(context: RunContext, node: Node) -> None:
    """Wait until Talos and Kubernetes report the node as ready."""

    def step() -> bool | None:
        found = context.kube().get("v1", "Node", node.name)
        return True if context.talos.is_ready(node) and has_condition(found, "Ready") else None

    context.wait_until("upgrade", f"{node.name} to be ready", step, interval=0.5)


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check that every node runs the wanted image, none is left cordoned, and the gates pass."""
    nodes = context.platform.nodes
    other = [node.name for node in nodes if not observation.is_current(node)]
    checks = [
        Check(
            f"every node runs Talos v{observation.image.version} with its extensions",
            not other,
            count(len(nodes), other),
            f"fluobook run {PHASE} {NAME}",
        ),
        Check(
            "no node is left cordoned by the upgrade",
            not observation.cordoned,
            count(len(nodes), sorted(observation.cordoned)),
            f"fluobook run {PHASE} {NAME}",
        ),
    ]
    return [*checks, *run_groups(context, health.BETWEEN)]
