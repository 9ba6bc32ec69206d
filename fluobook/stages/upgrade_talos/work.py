"""Fetch, drain, install or go back, restart and check one node; each action can be killed and done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fluobook.context import RunContext
from fluobook.errors import PHASE, DeadlineExceeded, ForeignObject, OutsideError, TaskFailed, Unreachable
from fluobook.machine.schematic import Image
from fluobook.params import Node
from fluobook.stages import health
from fluobook.stages.core.check import Check, count, run_groups
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action
from fluobook.stages.create_vms.settings import uuid_of as vm_uuid
from fluobook.stages.create_vms.work import wait, wait_unlocked
from fluobook.stages.day_two import canary, drain
from fluobook.stages.upgrade_talos.state import COLD_BOOT, NAME, Observation, cold_boot, read_running, wanted_image

Data = Mapping[str, Any]
SHUTDOWN = 120
"""Seconds until a guest must have shut down."""


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "check":
        health.wait_between(context, report)
        return None
    return _STEPS[action.verb](context, context.platform.node(action.data["node"]), action.data, report)


def _pull(context: RunContext, node: Node, data: Data, _report: Reporter) -> None:
    context.talos.client(node, "os:operator").pull(data["image"], timeout=context.platform.deadlines.upgrade)


def _attach(context: RunContext, node: Node, _data: Data, report: Reporter) -> Mapping[str, Any]:
    drain.until_ready(context, node)
    return canary.prove(context, node.name, report)


def _uncordon(context: RunContext, node: Node, _data: Data, _report: Reporter) -> None:
    drain.until_ready(context, node)
    drain.uncordon(context.kube(), node.name)


def _drain(context: RunContext, node: Node, _data: Data, report: Reporter) -> Mapping[str, Any]:
    """Move etcd's leader away, cordon, evict."""
    _forfeit(context, node, report)
    drain.cordon(context.kube(), node.name, NAME)
    return {"evicted": drain.drain(context, node.name, report)}


def _forfeit(context: RunContext, node: Node, report: Reporter) -> None:
    """Let another member of etcd lead before a control plane is away."""
    if node.role == "controlplane" and len(context.platform.control_planes) > 1:
        leader = context.talos.client(node, "os:admin").forfeit_leadership()
        report.evidence(leader=leader or "another member")


def _upgrade(context: RunContext, node: Node, data: Data, report: Reporter) -> Mapping[str, Any]:
    """Install beside the running image, restart, and wait for the wanted image to run.

    Raises:
        TaskFailed: the installer failed, or the node has fallen back to the image before. It stays cordoned.
    """
    limit, wanted, image = context.platform.deadlines.upgrade, wanted_image(context), data["image"]
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
    return _require(context, node, wanted)


def _require(
    context: RunContext,
    node: Node,
    wanted: Image,
    *,
    cause: str = "the new image did not boot, and Talos fell back to the previous one",
) -> Mapping[str, Any]:
    """Wait until a node is ready, and require that it runs the image.

    Raises:
        TaskFailed: it runs another one.
    """
    drain.until_ready(context, node)
    runs = read_running(context, node)
    if runs is None or not runs.installed(wanted):
        raise TaskFailed(
            f"{node.name} {f'runs {runs.version}' if runs else 'does not answer'} after its restart; it should run "
            f"v{wanted.version}",
            system="talos",
            cause=cause,
            remedy=f"read on the console of the VM {node.name} why it did not boot, and correct versions.talos or "
            f"talos/schematic.yaml; the node stays cordoned until {NAME} runs again",
            facts={"address": node.address},
        )
    return {"version": runs.version, "schematic": runs.schematic[:12]}


def _power_cycle(context: RunContext, node: Node, data: Data, report: Reporter) -> Mapping[str, Any]:
    """Let the VM boot from its firmware once, and note on the Node that it did.

    Proxmox VE switches off and on in one task, so a run that is killed here leaves no VM that is off.

    Raises:
        ForeignObject: the VM there is not the node's.
        TaskFailed: the node does not come back, or with another image.
    """
    drain.until_ready(context, node)
    proxmox = context.proxmox(context.platform.endpoint_of(node).name)
    if vm_uuid(proxmox.config(node.host, node.vmid)) != node.uuid.lower():
        raise ForeignObject(
            f"VM {node.vmid} on {node.host} is not that of {node.name}",
            cause="it was moved to another host, or made anew",
            remedy=f"correct nodes[].host in the params; {node.name} stays cordoned until {NAME} runs again",
        )
    _forfeit(context, node, report)
    before = context.talos.client(node, "os:admin").boot_id()
    wait_unlocked(context, proxmox, node.host, node.vmid, report)
    done = wait(context, proxmox, proxmox.reboot(node.host, node.vmid, timeout=SHUTDOWN), report, "vm_start")
    report("boots from its firmware")
    try:
        restarted(context, node, before)
        present = _require(context, node, wanted_image(context))
    except DeadlineExceeded as error:
        raise TaskFailed(
            f"{node.name} does not come back after it was switched off and on",
            system="talos",
            cause="its firmware or boot loader does not start the image; the restart before used kexec, which skips "
            "both",
            remedy=f"choose the previous Talos in the boot menu, on the console of the VM {node.name}; it is still "
            "cordoned, and no other node was touched",
            detail=error.message,
            facts={"address": node.address},
        ) from error
    context.kube().patch("v1", "Node", node.name, body={"metadata": {"annotations": {COLD_BOOT: data["image"]}}})
    return {**done, **present}


def _rollback(context: RunContext, node: Node, _data: Data, report: Reporter) -> Mapping[str, Any]:
    """Boot the image before, unless it runs already: a second Rollback would boot the newer one again.

    Raises:
        TaskFailed: there is none, or it is another one than that of the params.
    """
    wanted = wanted_image(context)
    drain.until_ready(context, node)
    runs = read_running(context, node)
    if runs is None or not runs.installed(wanted):
        before = context.talos.client(node, "os:admin").boot_id()
        report("boots the image before")
        _boot_the_one_before(context, node)
        restarted(context, node, before)
        drain.until_ready(context, node)  # the API was away with this node, or its address moves to another one
    if cold_boot(context.kube().get("v1", "Node", node.name)):
        context.kube().patch("v1", "Node", node.name, body={"metadata": {"annotations": {COLD_BOOT: None}}})
    return _require(context, node, wanted, cause=f"its previous image is not Talos {wanted.version}")


def _boot_the_one_before(context: RunContext, node: Node) -> None:
    """Boot the image before. If there is none, nothing has happened to the node, and it is uncordoned.

    Raises:
        TaskFailed: there is no image to go back to.
    """
    try:
        context.talos.client(node, "os:admin").rollback()
    except Unreachable:
        raise
    except OutsideError as error:
        drain.uncordon(context.kube(), node.name)
        raise TaskFailed(
            f"{node.name} cannot go back: {error.detail or error.message}",
            system="talos",
            cause="its disk has no previous image: it was installed with the present one",
            remedy="it is in service again as it was; set versions.talos to what it runs",
            facts={"address": node.address},
        ) from error


_STEPS: Mapping[str, Callable[[RunContext, Node, Data, Reporter], Mapping[str, Any] | None]] = {
    "pull": _pull,
    "drain": _drain,
    "upgrade": _upgrade,
    "rollback": _rollback,
    "power-cycle": _power_cycle,
    "attach": _attach,
    "uncordon": _uncordon,
}


def restarted(context: RunContext, node: Node, before: str) -> None:
    """Wait until the node has another boot id."""

    def step() -> bool | None:
        return True if context.talos.client(node, "os:admin").boot_id() not in ("", before) else None

    context.wait_until("upgrade", f"{node.name} to restart", step)


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
