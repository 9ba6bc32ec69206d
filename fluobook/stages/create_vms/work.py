"""Creates, changes and starts virtual machines, and checks that Talos answers in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fluobook.clients.proxmox import ProxmoxClient, Upid, VmLocked
from fluobook.clients.talos import Mode, probe
from fluobook.context import RunContext
from fluobook.errors import (
    Conflict,
    FluobookError,
    ForeignObject,
    NotFound,
    OutsideError,
    Rejected,
    TaskFailed,
    Unreachable,
)
from fluobook.files import read_text
from fluobook.machine.schematic import image_of
from fluobook.params import TALOS_PORT, Node
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.create_vms import plan, settings
from fluobook.stages.create_vms.plan import Observation
from fluobook.stages.day_two import drain, longhorn

START_TRIES = 3
"""How often a start is tried; a VM whose start failed is never destroyed."""


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "download":
        return _download(context, action, report)
    node = context.platform.node(action.data["node"])
    does = {"create": _create, "start": _start, "change": _change}[action.verb]
    return does(context, node, action, report)


def _client(context: RunContext, node: Node) -> ProxmoxClient:
    return context.proxmox(context.platform.endpoint_of(node).name)


def _download(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Have the host fetch the image; one that another run has begun, or has just finished, will do."""
    host, file = action.data["host"], action.data["file"]
    endpoint = context.platform.endpoint_at(host)
    client = context.proxmox(endpoint.name)
    text = read_text(context.root / "talos" / "schematic.yaml")
    image = image_of(text, context.platform.versions.talos)
    # The factory makes only images of schematics that were registered; registering one again changes nothing.
    if (schematic := context.factory.schematic(text)) != image.schematic:
        raise Rejected(
            f"the Image Factory calls the schematic {schematic[:16]}, computed here it is {image.schematic[:16]}",
            system="factory",
            cause="talos/schematic.yaml holds something that the factory writes in another form",
            remedy="take out unusual YAML (anchors, block texts, unknown fields), then run the stage again",
        )
    wanted = ("download", file, host)
    running = (t.upid for t in client.cluster_tasks() if t.running and (t.upid.type, t.upid.id, t.upid.node) == wanted)
    upid = next(running, None) or client.download_url(
        host, endpoint.image_storage, url=action.data["url"], filename=file
    )
    try:
        return wait(context, client, upid, report, "image_download")
    except TaskFailed:
        if plan.has_image(client, host, endpoint.image_storage, file):
            return {"existed": True}
        raise


def wait(context: RunContext, client: ProxmoxClient, upid: Upid, report: Reporter, deadline: str) -> Mapping[str, Any]:
    """Journal the task's id before asking for it the first time: after a crash it is the trace of what runs."""
    report.evidence(upid=str(upid))
    report.follow(lambda: client.task_log(upid))
    report(f"task {upid.type}")
    status = client.wait(
        upid, deadline=getattr(context.platform.deadlines, deadline), name=deadline, on_poll=context.cancellation.check
    )
    return {"upid": str(upid), "exit": status.exit}


def _create(context: RunContext, node: Node, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Request the VM; only if that gives no task, inspect the current state: the plan was made a moment ago."""
    client = _client(context, node)
    upid = _request(client, node, action.data["params"]) or _creating(client, node)
    if upid is not None:
        return wait(context, client, upid, report, "vm_create")
    if _exists(client, node):
        return {"existed": True}
    raise Unreachable(
        f"Proxmox VE did not answer when {node.name} was to be created, and it was not created",
        system="proxmox",
        remedy="run the stage again",
    )


def _creating(client: ProxmoxClient, node: Node) -> Upid | None:
    task = client.task_of(node.vmid, "qmcreate")
    return task.upid if task and task.running else None


def _exists(client: ProxmoxClient, node: Node) -> bool:
    """Whether the VM of that number is there and ours.

    Raises:
        ForeignObject: it is there and not ours.
    """
    try:
        config = client.config(node.host, node.vmid)
    except NotFound:
        return False
    if settings.uuid_of(config) == node.uuid.lower() and settings.TAG in settings.tags_of(config):
        return True
    raise ForeignObject(
        f"VM {node.vmid} ({config.get('name') or 'without a name'}) on {node.host} is not managed by fluobook",
        cause="its SMBIOS uuid or its tag is not that of our node",
        remedy=f"pin another number for {node.name} in the params (nodes[].vmid)",
    )


def _request(client: ProxmoxClient, node: Node, params: Mapping[str, Any]) -> Upid | None:
    """Request the VM; None if no answer came or if it already exists: only a new inspection can tell then."""
    try:
        return client.create_vm(node.host, vmid=node.vmid, **params)
    except (Conflict, Unreachable):
        return None
    except OutsideError as error:
        if not error.code.startswith("5"):
            raise
        if _creating(client, node) or _exists(client, node):
            return None
        return client.create_vm(node.host, vmid=node.vmid, **params)


def _start(context: RunContext, node: Node, _action: Action, report: Reporter) -> Mapping[str, Any]:
    evidence = _power_on(context, node, report)
    report.release_slot()
    report("waiting for the Talos API")
    context.wait_until(
        "maintenance",
        f"{node.name} answers at {node.address}:{TALOS_PORT}",
        lambda: _answers(context, node),
        interval=0.1,
    )
    return evidence


def _power_on(context: RunContext, node: Node, report: Reporter) -> Mapping[str, Any]:
    """Start the VM; a lock is waited for, a start that fails is tried again. One that runs already is fine."""
    client, tries = _client(context, node), 0
    while True:
        try:
            return wait(context, client, client.start(node.host, node.vmid), report, "vm_start")
        except VmLocked as error:
            report.evidence(lock=error.lock)
            report(f"locked ({error.lock})")
            wait_unlocked(context, client, node.host, node.vmid, report)
        except TaskFailed as error:
            tries += 1
            report.evidence(start_failed=error.detail)
            if tries == START_TRIES:
                raise


def wait_unlocked(context: RunContext, client: ProxmoxClient, host: str, vmid: int, report: Reporter) -> None:
    """Wait until nobody locks the VM: a backup or a snapshot ends by itself."""
    deadline = context.platform.deadlines.vm_lock
    client.wait_unlocked(host, vmid, deadline=deadline, on_poll=lambda lock: report(f"locked ({lock})"))


def _answers(context: RunContext, node: Node) -> bool | None:
    return True if probe(context.talos.address(node), timeout=2).mode is not Mode.UNREACHABLE else None


def _change(context: RunContext, node: Node, action: Action, report: Reporter) -> Mapping[str, Any]:
    client = _client(context, node)
    wait_unlocked(context, client, node.host, node.vmid, report)
    fields, cycle = action.data["fields"], action.data["cycle"]
    before = _serves(context, node) if cycle else set()
    if cycle:
        _volumes_whole(context, report)
        # A stopped VM takes every change over at once: a run that is killed here leaves nothing pending.
        wait(context, client, client.shutdown(node.host, node.vmid, timeout=60), report, "vm_start")
    config = client.config(node.host, node.vmid)
    changes, removed = settings.update(context.platform, node, config, fields)
    if changes or removed:
        client.configure(node.host, node.vmid, changes, digest=config.get("digest"), delete=",".join(removed) or None)
    for disk, size in settings.disks(node).items():
        now = settings.property_string(disk, str(config.get(disk, ""))).get("size", "")
        if disk in fields and disk in config and settings.size_gib(now) < size:
            wait(context, client, client.resize(node.host, node.vmid, disk, size), report, "vm_create")
    if cycle:
        _return(context, node, report, before)
    return {"changed": fields}


def _return(context: RunContext, node: Node, report: Reporter, before: set[str]) -> None:
    """Start the VM again; the next node's turn comes when this one is as ready as it was before, and volumes are."""
    _power_on(context, node, report)
    report("waiting for the Talos API")
    context.wait_until("maintenance", f"{node.name} answers again", lambda: _answers(context, node))
    report("waiting until it is ready again")
    context.wait_until("nodes_ready", f"{node.name} is ready again", lambda: before <= _serves(context, node) or None)
    _volumes_whole(context, report)


def _volumes_whole(context: RunContext, report: Reporter) -> None:
    """Wait until no volume of Longhorn lacks a copy: the next node may have the only other one."""

    def step() -> bool | None:
        if left := longhorn.degraded(context.kube()):
            report(f"{len(left)} volumes are degraded")
            raise FluobookError(f"degraded: {', '.join(left[: drain.SHOWN])}")
        return True

    if context.secrets.has_bundle() and context.kube().ready():
        context.wait_until("gate", "Longhorn to rebuild the copies of volumes", step, interval=0.5)


def _serves(context: RunContext, node: Node) -> set[str]:
    """What a node is good for: whether all is well with it, and, on a control plane, whether the API answers.

    The stages that follow begin by asking that API, and where there is one control plane it goes with the node.
    """
    answering = {"ready"} if context.talos.is_ready(node) else set()
    if node.role == "controlplane" and context.secrets.has_bundle() and context.kube().ready():
        answering.add("api")
    return answering


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 1."""
    nodes = context.platform.nodes
    answers = in_parallel(lambda node: _is_answering(context, node), nodes)
    silent = [node.name for node, answering in zip(nodes, answers, strict=True) if not answering]
    ours = {node: observation.ours(node) for node in nodes}
    absent = [node.name for node, vm in ours.items() if vm is None]
    stopped = [node.name for node, vm in ours.items() if vm is None or not vm.running]
    differing = [n.name for n, vm in ours.items() if vm and plan.differences(context.platform, n, vm)]
    failing = {
        "every node's VM exists, ours by uuid and tag": absent,
        "every VM runs": stopped,
        COMPARED: differing,
        "every node answers at its address": silent,
    }
    return [Check(name, not names, count(len(nodes), names)) for name, names in failing.items()]


COMPARED = "every VM has the settings of the params; its installer ISO is not compared"


def _is_answering(context: RunContext, node: Node) -> bool:
    try:
        context.wait_until("maintenance", node.name, lambda: _answers(context, node))
    except Exception:  # noqa: BLE001 (a check reports, it does not raise)
        return False
    return True
