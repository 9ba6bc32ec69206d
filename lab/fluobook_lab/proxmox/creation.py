"""Creating a virtual machine, with the window in which its configuration holds nothing but a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.proxmox import drives, power, storage
from fluobook_lab.proxmox.errors import TaskError, absent, forbidden, wrong
from fluobook_lab.proxmox.locks import locked
from fluobook_lab.proxmox.options import CREATE_ONLY, DRIVE, validate
from fluobook_lab.proxmox.rights import check_options
from fluobook_lab.proxmox.site import Vm

if TYPE_CHECKING:
    from fluobook_lab.proxmox.context import Call, World
    from fluobook_lab.proxmox.tasks import Task


def create(call: Call) -> str:
    """POST /nodes/{node}/qemu.

    The id is taken before the answer; until the worker is done the configuration holds nothing but its lock.
    """
    world, params = call.world, dict(call.params)
    world.site.host(call.node)
    if "vmid" not in params:
        raise absent("vmid")
    validate(params, also=CREATE_ONLY)
    vmid = _vmid(params.pop("vmid"))
    start = params.pop("start", "0") == "1"
    if not call.token.may(f"/vms/{vmid}", "VM.Allocate"):
        raise forbidden()
    check_options(call, vmid, params)
    world.site.check_unused(vmid)
    vm = Vm(vmid, call.node, {"lock": "create"})
    world.site.vms[vmid] = vm

    async def work(task: Task) -> None:
        async with locked(world, vm):
            await _make(world, vm, params, task)
        if start:
            await power.boot(world, vm)

    return world.tasks.fork(call.node, "qmcreate", str(vmid), call.token.id, work)


def _vmid(text: str) -> int:
    if not text.isdigit():
        raise wrong(vmid=f"type check ('integer') failed - got '{text}'")
    if not 100 <= int(text) <= 999_999_999:  # noqa: PLR2004 - the range that Proxmox VE has
        raise wrong(vmid="invalid format - value does not look like a valid VM ID")
    return int(text)


async def _make(world: World, vm: Vm, params: dict[str, str], task: Task) -> None:
    await world.clock.sleep(world.durations.create)
    try:
        disks = await _drives(world, vm, params, task)
    except TaskError as error:
        storage.release(world, vm.host, vm.vmid)
        del world.site.vms[vm.vmid]
        raise TaskError(f"unable to create VM {vm.vmid} - {error}") from None
    vm.config = drives.settle(world, params | disks)
    vm.config.setdefault("smbios1", f"uuid={drives.new_uuid(world)}")
    vm.config.setdefault("vmgenid", drives.new_uuid(world))
    vm.config["meta"] = f"creation-qemu=10.0.2,ctime={task.start}"
    vm.config.setdefault("boot", "order=" + ";".join(name for name in ("scsi0", "ide2", "net0") if name in vm.config))


async def _drives(world: World, vm: Vm, params: dict[str, str], task: Task) -> dict[str, str]:
    if world.faults.take("proxmox.create-task-fails"):
        raise TaskError("start failed: org.freedesktop.systemd1: connection timed out")
    names = sorted(name for name in params if DRIVE.fullmatch(name))
    made = {}
    for name in names:
        made[name] = await drives.make(world, vm, name, params[name])
        task.log.append(f"{name}: successfully created disk '{made[name]}'")
    return made
