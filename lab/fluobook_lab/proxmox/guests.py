"""Virtual machines that exist: read, changed, resized, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox import drives, storage
from fluobook_lab.proxmox.errors import TaskError, absent, died
from fluobook_lab.proxmox.locks import locked
from fluobook_lab.proxmox.options import DRIVE, NET, UPDATE_ONLY, parse, read_back, render, size_of, validate
from fluobook_lab.proxmox.rights import check_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fluobook_lab.proxmox.context import Call, World
    from fluobook_lab.proxmox.site import Vm
    from fluobook_lab.proxmox.tasks import Task

AT_ONCE = frozenset(
    {
        *("cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"),
        *("description", "hookscript", "name", "onboot", "protection", "startup", "tags"),
    }
)
"""What a running machine takes over at once; network, disks and addresses do too. All else waits for its next start."""


def config(call: Call) -> dict[str, Any]:
    """GET …/config."""
    vm = _audited(call)
    shown = vm.config if call.params.get("current") == "1" else vm.effective
    return {name: read_back(name, value) for name, value in shown.items()} | {"digest": vm.digest}


def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/pending."""
    vm = _audited(call)
    names = sorted(vm.config.keys() | vm.pending.keys())
    return [_pending(vm, name) for name in names] + [{"key": "digest", "value": vm.digest}]


def _pending(vm: Vm, name: str) -> dict[str, Any]:
    item: dict[str, Any] = {"key": name}
    item |= {"value": read_back(name, vm.config[name])} if name in vm.config else {}
    item |= {"pending": read_back(name, vm.pending[name])} if name in vm.pending else {}
    return item | ({"delete": 1} if name in vm.deleted else {})


def _audited(call: Call) -> Vm:
    call.token.need(f"/vms/{call.vmid}", "VM.Audit")
    return call.world.site.vm(call.node, call.vmid)


async def update(call: Call) -> None:
    """PUT …/config."""
    vm, work = _prepare(call)
    try:
        async with locked(call.world, vm):
            await work()
    except TaskError as error:
        raise died(str(error)) from None


def update_async(call: Call) -> str:
    """POST …/config: the same in a worker."""
    vm, work = _prepare(call)

    async def run(_: Task) -> None:
        async with locked(call.world, vm):
            await work()

    return call.world.tasks.fork(call.node, "qmconfig", str(vm.vmid), call.token.id, run)


def _prepare(call: Call) -> tuple[Vm, Callable[[], Awaitable[None]]]:
    params = dict(call.params)
    validate(params, also=UPDATE_ONLY)
    vm = call.world.site.vm(call.node, call.vmid)
    digest, gone = params.pop("digest", ""), params.pop("delete", "").replace(";", ",").split(",")
    changes = {name: value for name, value in params.items() if name not in UPDATE_ONLY}
    gone = [name for name in gone if name]
    if not changes and not gone:
        raise died("no options specified")
    check_options(call, vm.vmid, changes, update=True)

    async def work() -> None:
        if digest and digest != vm.digest:
            raise died("checksum mismatch (file change by other user?)")
        vm.check_lock()
        await _apply(call.world, vm, changes, gone)

    return vm, work


async def _apply(world: World, vm: Vm, changes: dict[str, str], gone: list[str]) -> None:
    """Store the changes; a running machine keeps what it cannot change until its next start."""
    for name, value in changes.items():
        if DRIVE.fullmatch(name):
            changes[name] = await drives.make(world, vm, name, _with_volume(vm, name, value))
    for name, value in drives.settle(world, changes).items():
        vm.deleted.discard(name)
        if vm.running and not _at_once(name):
            vm.pending[name] = value
        else:
            vm.pending.pop(name, None)
            vm.config[name] = value
    for name in gone:
        vm.pending.pop(name, None)
        if vm.running and not _at_once(name) and name in vm.config:
            vm.deleted.add(name)
        else:
            vm.config.pop(name, None)


def _with_volume(vm: Vm, name: str, value: str) -> str:
    """An option such as discard may be changed with the volume's own id, which then is not looked up anew."""
    return value if "=" not in value.partition(",")[0] else f"{parse(vm.config[name], 'file')['file']},{value}"


def _at_once(name: str) -> bool:
    return name in AT_ONCE or bool(NET.fullmatch(name) or DRIVE.fullmatch(name)) or name.startswith("ipconfig")


def resize(call: Call) -> str:
    """PUT …/resize."""
    world, vm = call.world, call.world.site.vm(call.node, call.vmid)
    call.token.need(f"/vms/{vm.vmid}", "VM.Config.Disk")
    disk, asked = call.params.get("disk", ""), call.params.get("size", "")
    if missing := [name for name in ("disk", "size") if not call.params.get(name)]:
        raise absent(*missing)

    async def work(_: Task) -> None:
        async with locked(world, vm):
            digest = call.params.get("digest")
            if digest and digest != vm.digest:
                raise TaskError("checksum mismatch (file change by other user?)")
            vm.check_lock()
            if disk not in vm.config:
                raise TaskError(f"disk '{disk}' does not exist")
            await _resize(world, vm, disk, asked)

    return world.tasks.fork(call.node, "resize", str(vm.vmid), call.token.id, work)


async def _resize(world: World, vm: Vm, disk: str, asked: str) -> None:
    shape = parse(vm.config[disk], "file")
    volume = storage.find(world, vm.host, shape["file"])
    if volume is None or shape.get("media") == "cdrom":
        raise TaskError("you can't resize a cdrom" if volume else f"volume '{shape['file']}' does not exist")
    size = storage.grown(shape["size"], asked)
    await world.clock.sleep(world.durations.resize)
    if not world.site.free(vm.host, shape["file"].partition(":")[0]):
        raise TaskError("lvresize failed: insufficient free space")
    volume.size = size
    vm.config[disk] = render(shape | {"size": size_of(size)}, "file")


def destroy(call: Call) -> str:
    """DELETE /nodes/{node}/qemu/{vmid}."""
    world, vmid = call.world, call.vmid
    call.token.need(f"/vms/{vmid}", "VM.Allocate")
    vm = world.site.vm(call.node, vmid)
    _check_removable(vm)

    async def work(_: Task) -> None:
        async with locked(world, vm):
            _check_removable(vm)
            vm.check_lock()
            await world.clock.sleep(world.durations.destroy)
            storage.release(world, vm.host, vmid)
            del world.site.vms[vmid]

    return world.tasks.fork(call.node, "qmdestroy", str(vmid), call.token.id, work)


def _check_removable(vm: Vm) -> None:
    if vm.config.get("protection") == "1":
        raise died(f"can't remove VM {vm.vmid} - protection mode enabled")
    if vm.running:
        raise died(f"VM {vm.vmid} is running - destroy failed")
