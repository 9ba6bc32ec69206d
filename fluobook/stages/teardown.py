"""Runbook 28, teardown: destroys the virtual machines of the cluster with their disks, and nothing that is not ours.

A VM is ours by SMBIOS uuid and tag, one whose node left the params too. A clone of it has its tags and another uuid: it
is named and left alone. The first control plane goes last, because its notes hold the claim on the cluster: until then
no other checkout takes a half removed platform for an empty site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fluobook.clients.proxmox.session import WIDTH
from fluobook.context import RunContext
from fluobook.errors import ForeignObject, NotFound, Refused
from fluobook.params import Platform, derive
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage
from fluobook.stages.create_vms import settings, work
from fluobook.stages.create_vms.plan import Observation, ObservedVM, no_foreign_tasks, observe

NAME = "teardown"
LOST = "lost for ever: etcd, and all data of volumes, databases and RabbitMQ that is not backed up elsewhere"
KEPT = (
    "kept: the secrets bundle and the access files, so that the same cluster can be made again; the Talos images on "
    "the hosts; backups and snapshots that lie elsewhere"
)
NETWORK = "kept: the host network; to remove it, set removed: true for its hosts afterwards, and run host-network"
_DISK = re.compile(r"(?:scsi|virtio|sata|ide|unused)\d+")


def plan(platform: Platform, observation: Observation) -> Plan:
    """The VMs to destroy, each approved with the name of the cluster.

    Raises:
        Locked: another user's task runs on a VM of this cluster.
        Refused: a VM is protected against removal.
    """
    ours = [vm for node in platform.nodes if (vm := observation.ours(node))]
    ours += [vm for vm in observation.strays if is_former_node(platform, vm)]
    if protected := [str(vm) for vm in ours if str(vm.config.get("protection", "0")) == "1"]:
        raise Refused(
            f"protected against removal: {', '.join(protected)}",
            cause="the protection was set in Proxmox VE, not by fluobook",
            remedy="to destroy it, take the protection off (qm set VMID --protection 0), then run the stage again",
        )
    if ours:
        no_foreign_tasks(platform, observation)
    last = platform.control_planes[0].uuid.lower()
    others = tuple(f"destroy {vm.vmid}" for vm in ours if settings.uuid_of(vm.config) != last)
    name = platform.cluster.name
    actions = [destruction(platform, vm, others if settings.uuid_of(vm.config) == last else (), name) for vm in ours]
    actions.sort(key=lambda action: bool(action.needs))
    notes = [*_left_alone(platform, observation, ours)]
    if actions:
        notes += [LOST, KEPT, *([NETWORK] if platform.wireguard else [])]
    return Plan(NAME, tuple(actions), 0, platform.digest_data(), notes=tuple(notes))


def destruction(platform: Platform, vm: ObservedVM, needs: tuple[str, ...], word: str) -> Action:
    """The action that destroys a VM of ours; a person types `word` to approve it."""
    host, name = str(vm.resource["node"]), vm.resource.get("name") or "without a name"
    return Action(
        f"destroy {vm.vmid}",
        "delete",
        f"vm {name}",
        detail=f"VM {vm.vmid} on {host}, {'running' if vm.running else 'stopped'}, {', '.join(_disks(vm))}",
        reason="a node of the cluster" if _in_params(platform, vm) else "a former node of the cluster",
        needs=needs,
        system=f"proxmox:{host}",
        data=place_of(vm),
        destroys=(word,),
    )


def place_of(vm: ObservedVM) -> dict[str, Any]:
    """Where a VM is, and by what it is known, as data of an action."""
    return {"host": str(vm.resource["node"]), "vmid": vm.vmid, "uuid": settings.uuid_of(vm.config)}


def _in_params(platform: Platform, vm: ObservedVM) -> bool:
    """Whether the VM is that of a node in the params."""
    return settings.uuid_of(vm.config) in {node.uuid.lower() for node in platform.nodes}


def _disks(vm: ObservedVM) -> Iterator[str]:
    """The disks that go with the VM, each with its size, and its snapshots."""
    for option, value in sorted(vm.config.items()):
        if _DISK.fullmatch(option) and not re.search("media=cdrom|cloudinit", str(value)):
            disk = settings.property_string(option, str(value))
            yield f"{option} {disk.get('size') or next(iter(disk.values()), '')}"
    if "parent" in vm.config:
        yield "its snapshots"


def is_former_node(platform: Platform, vm: ObservedVM) -> bool:
    """Whether a VM with our tags is that of a node that left the params, and no clone: its uuid follows its name."""
    derived = derive.uuid_of(platform.cluster.name, str(vm.resource.get("name"))).lower()
    return settings.uuid_of(vm.config) == derived and _in_reach(platform, vm)


def _in_reach(platform: Platform, vm: ObservedVM) -> bool:
    """Whether the params have the host of a VM."""
    return any(vm.resource["node"] in endpoint.hosts for endpoint in platform.proxmox)


def _left_alone(platform: Platform, observation: Observation, ours: Sequence[ObservedVM]) -> Iterator[str]:
    seen = {(vm.resource["node"], vm.vmid) for vm in ours}
    concerned = [vm for candidates in observation.vms.values() for vm in candidates]
    for vm in [*concerned, *observation.strays]:
        if (place := (vm.resource["node"], vm.vmid)) not in seen:
            seen.add(place)
            tagged = settings.TAG in settings.tags_of(vm.config)
            why = "its uuid is not that of a node, as with a clone" if tagged else "it does not have our tag"
            if tagged and not _in_reach(platform, vm):
                why = "its host is not in the params"
            yield f"left alone: {vm}, {why}"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Stop one VM and destroy it; one that is gone already is fine.

    Raises:
        ForeignObject: the VM of that number is not the one of the plan any more.
    """
    host, vmid = action.data["host"], action.data["vmid"]
    client = context.proxmox(context.platform.endpoint_at(host).name)
    try:
        work.wait_unlocked(context, client, host, vmid, report)
        config, status = client.config(host, vmid), client.vm_status(host, vmid)["status"]
    except NotFound:
        return {"existed": False}
    if settings.uuid_of(config) != action.data["uuid"] or settings.TAG not in settings.tags_of(config):
        raise ForeignObject(
            f"VM {vmid} on {host} is not the VM of the plan: its uuid or tag has changed",
            cause="somebody made another VM with this number in between",
            remedy="run the stage again; what is not ours is left alone",
        )
    if status != "stopped":
        work.wait(context, client, client.stop(host, vmid), report, "vm_start")
    return work.wait(context, client, client.delete(host, vmid), report, "vm_create")


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Whether nothing of the cluster is left on the hosts."""
    platform = context.platform
    left = [node.name for node in platform.nodes if observation.ours(node)]
    left += [str(vm) for vm in observation.strays if is_former_node(platform, vm)]
    answering = [node.name for node in platform.nodes if node.address in observation.answering]
    total = len(platform.nodes)
    return [
        Check("no VM of the cluster is left", not left, count(max(total, len(left)), left)),
        Check("nothing answers at the addresses of the nodes", not answering, count(total, answering)),
    ]


STAGE = Stage(
    28,
    NAME,
    "Tear the platform down",
    observe,
    plan,
    perform,
    verify,
    uses=("proxmox", "talos", "kubernetes"),
    widths={"proxmox": WIDTH},
)
