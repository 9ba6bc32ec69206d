"""Virtual machines: create, read, change, resize, destroy, and the privileges that each option needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.model import Vm
from fluobook_lab.proxmox.options import (
    CREATE_ONLY,
    DRIVE,
    NET,
    NEW_DISK,
    UPDATE_ONLY,
    TaskError,
    failed,
    forbidden,
    invalid,
    missing,
    parse,
    parse_net,
    render,
    shown,
    size_of,
    validate,
)
from fluobook_lab.proxmox.power import boot, locked
from fluobook_lab.proxmox.storage import attach_disk, delete_disks, find_volume, grown_size, new_uuid, stored_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.proxmox.model import Backend, Call, Task

_BY_OPTION = {
    "VM.Config.CPU": "cores cpu cpulimit cpuunits numa sockets vcpus",
    "VM.Config.Memory": "memory balloon shares",
    "VM.Config.HWType": "acpi hotplug kvm machine scsihw smbios1 tablet vga rng0 audio0 watchdog vmgenid",
    "VM.Config.Options": "agent bios description localtime name onboot ostype protection reboot startup template tags",
    "VM.Config.Disk": "boot bootdisk",
    "VM.Config.Cloudinit": "citype ciuser cipassword ciupgrade nameserver searchdomain sshkeys",
}
PRIVILEGE = {option: privilege for privilege, options in _BY_OPTION.items() for option in options.split()}

_RUNNING = """
    cicustom cipassword citype ciupgrade ciuser nameserver searchdomain sshkeys
    description hookscript name onboot protection startup tags
"""
_HOT_PLUGGED = frozenset(_RUNNING.split())
"""Options that change on a running VM, besides networks, disks and addresses; others wait for the next start."""


def _check_privileges(call: Call, vmid: int, options: Mapping[str, str], *, update: bool = False) -> None:
    """Refuse options, storages and bridges for which the token has no privilege."""
    path = f"/vms/{vmid}"
    for name, value in sorted(options.items()):
        if DRIVE.fullmatch(name):
            _check_drive(call, path, name, value)
        elif NET.fullmatch(name):
            call.token.need(path, "VM.Config.Network")
            net = parse_net(value)[2]
            if bridge := net.get("bridge"):
                vlan = f"/{net['tag']}" if "tag" in net else ""
                call.token.need(f"/sdn/zones/localnetwork/{bridge}{vlan}", "SDN.Use")
        elif name.startswith("serial"):
            call.token.need(path, "VM.Config.HWType")
        elif name.startswith("ipconfig"):
            either = ("VM.Config.Cloudinit", "VM.Config.Network")
            if not any(call.token.may(path, privilege) for privilege in either):
                raise forbidden(path, *either)
        elif name in PRIVILEGE:
            call.token.need(path, PRIVILEGE[name])
        elif update or name not in {"pool", "storage"}:
            raise failed(f"only root can set '{name}' config")


def _check_drive(call: Call, path: str, name: str, value: str) -> None:
    drive = parse(value, "file")
    file = drive["file"]
    cdrom = drive.get("media") == "cdrom" or file.endswith(":cloudinit")
    call.token.need(path, "VM.Config.CDROM" if cdrom else "VM.Config.Disk")
    if file in {"none", "cdrom"}:
        return
    storage = file.partition(":")[0]
    if new := NEW_DISK.fullmatch(file):
        call.token.need(f"/storage/{storage}", "Datastore.AllocateSpace")
        if "images" not in call.backend.inventory.storage(storage).content:
            raise invalid(storage=f"storage '{storage}' does not support vm images")
        if "import-from" in drive and float(new["gib"]):
            raise invalid(**{name: "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"})
    elif ":" not in file:
        raise failed(f"unable to parse volume ID '{file}'")
    elif not file.endswith((":cloudinit", ".iso")) and "vm-" not in file:
        raise failed(f"unable to parse lvm volume name '{file.partition(':')[2]}'")
    else:
        call.backend.inventory.storage(storage)


def create(call: Call) -> str:
    """POST /nodes/{node}/qemu: the id is taken before the answer; until the worker is done the VM has only a lock."""
    backend, params = call.backend, dict(call.params)
    backend.inventory.host(call.node)
    if "vmid" not in params:
        raise missing("vmid")
    validate(params, also=CREATE_ONLY)
    text = params.pop("vmid")
    if not text.isdigit():
        raise invalid(vmid=f"type check ('integer') failed - got '{text}'")
    vmid = int(text)
    if not 100 <= vmid <= 999_999_999:  # noqa: PLR2004 - the range of Proxmox VE
        raise invalid(vmid="invalid format - value does not look like a valid VM ID")
    start = params.pop("start", "0") == "1"
    if not call.token.may(f"/vms/{vmid}", "VM.Allocate"):
        raise forbidden()
    _check_privileges(call, vmid, params)
    backend.inventory.check_unused(vmid)
    vm = Vm(vmid, call.node, {"lock": "create"})
    backend.inventory.vms[vmid] = vm

    async def work(task: Task) -> None:
        async with locked(backend, vm):
            await _create(backend, vm, params, task)
        if start:
            await boot(backend, vm)

    return backend.tasks.fork(call.node, "qmcreate", str(vmid), call.token.id, work)


async def _create(backend: Backend, vm: Vm, params: dict[str, str], task: Task) -> None:
    await backend.clock.sleep(backend.durations.create)
    disks = {}
    try:
        if backend.faults.take("proxmox.create-task-fails"):
            raise TaskError("start failed: org.freedesktop.systemd1: connection timed out")  # noqa: TRY301
        for name in sorted(filter(DRIVE.fullmatch, params)):
            disks[name] = await attach_disk(backend, vm, name, params[name])
            task.log.append(f"{name}: successfully created disk '{disks[name]}'")
    except TaskError as error:
        delete_disks(backend, vm.host, vm.vmid)
        del backend.inventory.vms[vm.vmid]
        raise TaskError(f"unable to create VM {vm.vmid} - {error}") from None
    vm.config = stored_options(backend, params | disks)
    vm.config.setdefault("smbios1", f"uuid={new_uuid(backend)}")
    vm.config.setdefault("vmgenid", new_uuid(backend))
    vm.config["meta"] = f"creation-qemu=10.0.2,ctime={task.start}"
    vm.config.setdefault("boot", "order=" + ";".join(name for name in ("scsi0", "ide2", "net0") if name in vm.config))


def config(call: Call) -> dict[str, Any]:
    """GET …/config."""
    vm = _readable(call)
    options = vm.config if call.params.get("current") == "1" else vm.effective
    return {name: shown(name, value) for name, value in options.items()} | {"digest": vm.digest}


def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/pending."""
    vm = _readable(call)
    items: list[dict[str, Any]] = []
    for name in sorted(vm.config.keys() | vm.pending.keys()):
        item: dict[str, Any] = {"key": name}
        item |= {"value": shown(name, vm.config[name])} if name in vm.config else {}
        item |= {"pending": shown(name, vm.pending[name])} if name in vm.pending else {}
        items.append(item | ({"delete": 1} if name in vm.deleted else {}))
    return [*items, {"key": "digest", "value": vm.digest}]


def _readable(call: Call) -> Vm:
    call.token.need(f"/vms/{call.vmid}", "VM.Audit")
    return call.backend.inventory.vm(call.node, call.vmid)


async def update(call: Call) -> None:
    """PUT …/config."""
    params = dict(call.params)
    validate(params, also=UPDATE_ONLY)
    vm = call.backend.inventory.vm(call.node, call.vmid)
    digest = params.pop("digest", "")
    removed = [name for name in params.pop("delete", "").replace(";", ",").split(",") if name]
    changes = {name: value for name, value in params.items() if name not in UPDATE_ONLY}
    if not changes and not removed:
        raise failed("no options specified")
    _check_privileges(call, vm.vmid, changes, update=True)
    try:
        async with locked(call.backend, vm):
            if digest and digest != vm.digest:
                raise failed("checksum mismatch (file change by other user?)")
            vm.check_lock()
            await _apply(call.backend, vm, changes, removed)
    except TaskError as error:
        raise failed(str(error)) from None


async def _apply(backend: Backend, vm: Vm, changes: dict[str, str], removed: list[str]) -> None:
    """Store the changes; on a running VM, those that cannot be hot-plugged become pending."""
    for name, value in changes.items():
        if DRIVE.fullmatch(name):
            # A value without a volume changes properties (discard=on) of the present volume.
            with_volume = (
                f"{parse(vm.config[name], 'file')['file']},{value}" if "=" in value.partition(",")[0] else value
            )
            changes[name] = await attach_disk(backend, vm, name, with_volume)
    for name, value in stored_options(backend, changes).items():
        vm.deleted.discard(name)
        if vm.running and not _hot_plugged(name):
            vm.pending[name] = value
        else:
            vm.pending.pop(name, None)
            vm.config[name] = value
    for name in removed:
        vm.pending.pop(name, None)
        if vm.running and not _hot_plugged(name) and name in vm.config:
            vm.deleted.add(name)
        else:
            vm.config.pop(name, None)


def _hot_plugged(name: str) -> bool:
    return name in _HOT_PLUGGED or bool(NET.fullmatch(name) or DRIVE.fullmatch(name)) or name.startswith("ipconfig")


def resize(call: Call) -> str:
    """PUT …/resize."""
    backend, vm = call.backend, call.backend.inventory.vm(call.node, call.vmid)
    call.token.need(f"/vms/{vm.vmid}", "VM.Config.Disk")
    if absent := [name for name in ("disk", "size") if not call.params.get(name)]:
        raise missing(*absent)
    disk, size = call.params["disk"], call.params["size"]

    async def work(_: Task) -> None:
        async with locked(backend, vm):
            digest = call.params.get("digest")
            if digest and digest != vm.digest:
                raise TaskError("checksum mismatch (file change by other user?)")
            vm.check_lock()
            if disk not in vm.config:
                raise TaskError(f"disk '{disk}' does not exist")
            await _resize(backend, vm, disk, size)

    return backend.tasks.fork(call.node, "resize", str(vm.vmid), call.token.id, work)


async def _resize(backend: Backend, vm: Vm, disk: str, requested: str) -> None:
    drive = parse(vm.config[disk], "file")
    volume = find_volume(backend, vm.host, drive["file"])
    if volume is None or drive.get("media") == "cdrom":
        raise TaskError("you can't resize a cdrom" if volume else f"volume '{drive['file']}' does not exist")
    size = grown_size(drive["size"], requested)
    await backend.clock.sleep(backend.durations.resize)
    if not backend.inventory.free(vm.host, drive["file"].partition(":")[0]):
        raise TaskError("lvresize failed: insufficient free space")
    volume.size = size
    vm.config[disk] = render(drive | {"size": size_of(size)}, "file")


def destroy(call: Call) -> str:
    """DELETE /nodes/{node}/qemu/{vmid}."""
    backend, vmid = call.backend, call.vmid
    call.token.need(f"/vms/{vmid}", "VM.Allocate")
    vm = backend.inventory.vm(call.node, vmid)
    _check_removable(vm)

    async def work(_: Task) -> None:
        async with locked(backend, vm):
            _check_removable(vm)
            vm.check_lock()
            await backend.clock.sleep(backend.durations.destroy)
            delete_disks(backend, vm.host, vmid)
            backend.machines.forget(vm.uuid)
            del backend.inventory.vms[vmid]

    return backend.tasks.fork(call.node, "qmdestroy", str(vmid), call.token.id, work)


def _check_removable(vm: Vm) -> None:
    if vm.config.get("protection") == "1":
        raise failed(f"can't remove VM {vm.vmid} - protection mode enabled")
    if vm.running:
        raise failed(f"VM {vm.vmid} is running - destroy failed")
