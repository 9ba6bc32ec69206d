"""What keeps stage 1 from doing anything: things of others in our places, people at work, our VMs elsewhere. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import ForeignObject, Locked, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params import Node, Platform
    from fluobook.stages.create_vms.observe import Observation, Seen


def nothing_in_the_way(platform: Platform, seen: Observation) -> None:
    """Go on only if every place of ours is free or holds what is ours.

    Raises:
        ForeignObject: something that is not ours has a number, a name or an address of ours.
        Refused: a VM of ours is not where the params say.
    """
    told = [reason for node in platform.nodes for reason in _foreign(platform, node, seen)]
    if told:
        raise ForeignObject(
            "; ".join(told),
            cause="somebody else uses it; fluobook knows its own VMs by SMBIOS uuid and tag, never by number or name",
            remedy="choose another name or address for the node, or pin another number (nodes[].vmid), in the params",
        )
    for node in platform.nodes:
        _where_it_should_be(node, seen.ours(node))


def nobody_at_work(platform: Platform, seen: Observation) -> None:
    """Go on only if nobody else is just changing a VM of ours; a backup is waited for later.

    Raises:
        Locked: somebody is; it says who.
    """
    for node in platform.nodes:
        ours, own = seen.ours(node), platform.endpoint_of(node).token_id
        for task in seen.at_work_on(ours.vmid) if ours else ():
            if task.upid.user != own:
                raise Locked(
                    f"{task.upid.user} is changing {node.name}: task {task.upid.type} on {ours}",
                    cause="another operator, or another program, changes this VM at this moment",
                    remedy=f"wait for the end of task {task.upid}, then run the stage again",
                )


def _foreign(platform: Platform, node: Node, seen: Observation) -> Iterator[str]:
    for vm in seen.vms[node.name]:
        if not vm.is_ours(node) and not _being_created(platform, node, vm, seen):
            yield f"{vm} has {_shared(node, vm)} of {node.name} and is not managed by fluobook"
    if node.address in seen.answering:
        yield f"something answers at {node.address}, the address of {node.name}, although its VM does not exist"


def _shared(node: Node, vm: Seen) -> str:
    if vm.vmid == node.vmid:
        return f"the number {node.vmid}"
    return "the name" if vm.resource.get("name") == node.name else "the uuid, but not the tag,"


def _being_created(platform: Platform, node: Node, vm: Seen, seen: Observation) -> bool:
    """A VM that is being created has neither name nor uuid yet; our own running task tells that it is ours."""
    own = platform.endpoint_of(node).token_id
    tasks = [task for task in seen.at_work_on(node.vmid) if task.upid.type == "qmcreate" and task.upid.user == own]
    return vm.vmid == node.vmid and vm.lock == "create" and bool(tasks)


def _where_it_should_be(node: Node, ours: Seen | None) -> None:
    if ours is None or (ours.vmid == node.vmid and ours.resource.get("node") == node.host):
        return
    raise Refused(
        f"{node.name} is {ours}, and the params say {node.vmid} on {node.host}",
        cause="the VM was moved, or the params were changed after it was made",
        remedy=f"set host: {ours.resource.get('node')} and vmid: {ours.vmid} for {node.name} in the params, "
        "or move the VM back",
    )
