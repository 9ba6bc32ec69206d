"""From what there is to what should be: downloads, creations, starts and changes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import Refused
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.create_vms.hardware import Difference, create_params, differences, size_gib
from fluobook.stages.create_vms.in_the_way import nobody_at_work, nothing_in_the_way

if TYPE_CHECKING:
    from fluobook.params import Node, Platform
    from fluobook.stages.create_vms.observe import Observation, Seen

NAME = "create-vms"


def plan(platform: Platform, seen: Observation) -> Plan:
    """The actions of stage 1.

    Raises:
        ForeignObject: something that is not ours has a number, a name or an address of ours.
        Locked: somebody else is at work on a VM of ours.
        Refused: a disk would have to shrink, or a VM of ours is not where the params say.
    """
    nothing_in_the_way(platform, seen)
    actions = _images(platform, seen)
    kept = len(platform.hosts) - len(actions)
    cycled = ""
    for node in platform.nodes:
        ours = seen.ours(node)
        mine = _create(platform, seen, node) if ours is None else _adjust(platform, node, ours, cycled)
        cycled = next((a.id for a in mine if a.system == "cycle"), cycled)
        kept += not mine
        actions += mine
    if actions:
        nobody_at_work(platform, seen)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(map(_stray, seen.strays)))


def _stray(vm: Seen) -> str:
    """What is said of a VM of this cluster whose node is not in the params any more; it is never removed here."""
    return (
        f"left alone: {vm} has this cluster's tag, and no node of the params is it; put its node back, or drain it,"
        " remove it from Kubernetes and Talos, then destroy the VM"
    )


def _images(platform: Platform, seen: Observation) -> list[Action]:
    return [
        Action(
            f"image {host}",
            "download",
            f"image {seen.image.filename}",
            detail=f"to {host}, Talos {platform.versions.talos}",
            reason="a download of it is running" if seen.task("download", seen.image.filename) else f"not on {host}",
            system=f"proxmox:{host}",
            data={"host": host, "file": seen.image.filename, "url": seen.image.url},
        )
        for host in platform.hosts
        if host not in seen.images
    ]


def _create(platform: Platform, seen: Observation, node: Node) -> list[Action]:
    data = {"node": node.name, "vmid": node.vmid, "params": create_params(platform, node, seen.image.filename)}
    create = Action(
        f"create {node.name}",
        "create",
        f"vm {node.name}",
        detail=_detail(node),
        reason="its creation is running" if seen.task("qmcreate", str(node.vmid)) else f"not on {node.host}",
        needs=(f"image {node.host}",),
        system=f"proxmox:{platform.endpoint_of(node).name}",
        data=data,
    )
    return [create, _start(platform, node, needs=(create.id,), reason="new")]


def _start(platform: Platform, node: Node, *, needs: tuple[str, ...] = (), reason: str) -> Action:
    system = f"proxmox:{platform.endpoint_of(node).name}"
    return Action(
        f"start {node.name}", "start", f"vm {node.name}", node.address, reason, needs, system, {"node": node.name}
    )


def _detail(node: Node) -> str:
    data = f" + {node.data_disk_gib} GiB" if node.data_disk_gib else ""
    return f"{node.cores} vCPU  {node.memory_gib} GiB  {node.boot_disk_gib} GiB{data}  {node.address}"


def _adjust(platform: Platform, node: Node, vm: Seen, cycled: str) -> list[Action]:
    found = differences(platform, node, vm.config, vm.resource)
    _no_disk_shrinks(node, found)
    actions = [_change(platform, node, vm, found, cycled)] if found else []
    if not vm.running:
        actions.append(_start(platform, node, needs=tuple(a.id for a in actions), reason="stopped"))
    return actions


def _change(platform: Platform, node: Node, vm: Seen, found: tuple[Difference, ...], cycled: str) -> Action:
    """Nodes that need a power cycle wait for each other: one at a time."""
    cycle = vm.running and any(difference.cold for difference in found)
    return Action(
        f"change {node.name}",
        "change",
        f"vm {node.name}",
        detail=", ".join(str(difference) for difference in found) + (", with a power cycle" if cycle else ""),
        reason="differs from the params",
        needs=(cycled,) if cycle and cycled else (),
        system="cycle" if cycle else f"proxmox:{platform.endpoint_of(node).name}",
        data={"node": node.name, "fields": [difference.field for difference in found], "cycle": cycle},
    )


def _no_disk_shrinks(node: Node, found: tuple[Difference, ...]) -> None:
    for difference in found:
        if not difference.field.startswith("scsi") or difference.now == "none":
            continue
        now, wanted = (size_gib(text.replace(" GiB", "G")) for text in (difference.now, difference.wanted))
        if wanted < now:
            raise Refused(
                f"{node.name}: {difference} would shrink a disk",
                cause="a disk cannot shrink without losing what is on it",
                remedy=f"set it to {difference.now} or more in the params; a smaller disk needs a new node",
            )
