"""Virtual machines: create, read, change, resize, destroy, and the privileges that each option needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.data import table
from fluobook_lab.proxmox import schema
from fluobook_lab.proxmox.model import Vm
from fluobook_lab.proxmox.options import (
    DRIVE,
    NET,
    NEW_DISK,
    PveError,
    TaskError,
    failed,
    forbidden,
    invalid,
    parse,
    parse_net,
    render,
    size_of,
)
from fluobook_lab.proxmox.power import boot, locked
from fluobook_lab.proxmox.storage import attach_disk, delete_disks, find_volume, grown_size, new_uuid, stored_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.proxmox.model import Backend, Call, Task

PRIVILEGE = {
    option: privilege
    for privilege, options in table("proxmox/formats.yaml")["privileges"].items()
    for option in options.split()
}

_RUNNING = """
    cicustom cipassword citype ciupgrade ciuser nameserver searchdomain sshkeys
    description hookscript name onboot protection startup tags
"""
_HOT_PLUGGED = frozenset(_RUNNING.split())
"""Options that change on a running VM, besides networks, disks and addresses; others wait for the next start."""


def _check_privileges(call: Call, vmid: int, options: Mapping[str, str]) -> None:
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
                vnet = call.backend.inventory.sdn.running["vnets"].get(bridge, {"zone": "localnetwork"})
                call.token.need(f"/sdn/zones/{vnet['zone']}/{bridge}{vlan}", "SDN.Use")
        elif name == "cpu":
            call.token.need(path, PRIVILEGE[name])
            _check_cpu(call, parse(value, "cputype").get("cputype", ""))
        elif name.startswith("ipconfig"):
            either = ("VM.Config.Cloudinit", "VM.Config.Network")
            if not any(call.token.may(path, privilege) for privilege in either):
                raise forbidden(path, *either)
        elif privilege := PRIVILEGE.get(
            f"{name[:-1]}={value}" if value == "socket" else re.sub("^numa[0-7]$", "numaN", name)
        ):
            call.token.need(path, privilege)
        elif name in schema.vm_options():
            raise failed(f"only root can set '{name}' config")


def _check_cpu(call: Call, model: str) -> None:
    """An administrator's own model must be defined, and who may not see them may not use them."""
    if model.startswith("custom-"):
        if model not in call.backend.inventory.cpu_models:
            raise invalid(cpu=f"invalid format - Custom cputype '{model.removeprefix('custom-')}' not found\n")
        call.token.need("/nodes", "Sys.Audit")


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
    vmid = int(params.pop("vmid"))
    start = params.pop("start", "0") == "1"
    if "cdrom" in params:
        params["ide2"] = f"{params.pop('cdrom')},media=cdrom"
    if not call.token.may(f"/vms/{vmid}", "VM.Allocate"):
        raise forbidden()
    _check_privileges(call, vmid, params)
    pool = params.pop("pool", "")
    if pool and pool not in backend.inventory.pools:
        raise failed(f"pool '{pool}' does not exist")
    if "archive" in params:
        raise failed(f"volume '{params['archive']}' does not exist")
    backend.inventory.check_unused(vmid)
    vm = Vm(vmid, call.node, {"lock": "create"}, pool=pool)
    backend.inventory.vms[vmid] = vm

    async def work(task: Task) -> None:
        async with locked(backend, vm):
            await _create(backend, vm, params, task)
        if start:
            await boot(backend, vm, task)

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
    options = {name: value for name, value in params.items() if name in schema.vm_options()}
    vm.config = stored_options(backend, options | disks)
    vm.config.setdefault("smbios1", f"uuid={new_uuid(backend)}")
    vm.config.setdefault("vmgenid", new_uuid(backend))
    vm.config["meta"] = f"creation-qemu=10.0.2,ctime={task.start}"
    vm.config.setdefault("boot", "order=" + ";".join(name for name in ("scsi0", "ide2", "net0") if name in vm.config))


def config(call: Call) -> dict[str, Any]:
    """GET …/config."""
    vm = _readable(call)
    if snapshot := call.params.get("snapshot"):
        raise failed(f"snapshot '{snapshot}' does not exist")
    options = vm.config if call.params.get("current") == "1" else vm.effective
    return {name: schema.shown(name, value) for name, value in options.items()} | {"digest": vm.digest}


def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/pending."""
    vm = _readable(call)
    items: list[dict[str, Any]] = []
    for name in sorted(vm.config.keys() | vm.pending.keys()):
        item: dict[str, Any] = {"key": name}
        item |= {"value": schema.shown(name, vm.config[name])} if name in vm.config else {}
        item |= {"pending": schema.shown(name, vm.pending[name])} if name in vm.pending else {}
        items.append(item | ({"delete": 1} if name in vm.deleted else {}))
    return [*items, {"key": "digest", "value": vm.digest}]


def _readable(call: Call) -> Vm:
    call.token.need(f"/vms/{call.vmid}", "VM.Audit")
    return call.backend.inventory.vm(call.node, call.vmid)


def update_in_task(call: Call) -> str:
    """POST …/config: what PUT does, as a task."""
    vm, changes, removed, reverted = _requested(call)

    async def work(_: Task) -> None:
        try:
            await _change(call, vm, changes, removed, reverted)
        except PveError as error:
            raise TaskError(error.text) from None

    return call.backend.tasks.fork(call.node, "qmconfig", str(vm.vmid), call.token.id, work)


async def update(call: Call) -> None:
    """PUT …/config."""
    try:
        await _change(call, *_requested(call))
    except TaskError as error:
        raise failed(str(error)) from None


def _requested(call: Call) -> tuple[Vm, dict[str, str], list[str], list[str]]:
    """The VM, and the options that a request changes, deletes and reverts."""
    vm = call.backend.inventory.vm(call.node, call.vmid)
    changes = {name: value for name, value in call.params.items() if name in schema.vm_options()}
    removed, reverted = (re.findall(r"[^,;\s]+", call.params.get(name, "")) for name in ("delete", "revert"))
    if not changes and not removed and not reverted:
        raise failed("no options specified")
    for parameter, names in (("delete", removed), ("revert", reverted)):
        for name in names:
            if name in changes:
                raise invalid(**{parameter: f"you can't use '-{name}' and -{parameter} {name}' at the same time"})
            if name not in schema.vm_options():
                raise invalid(**{parameter: f"unknown option '{name}'"})
    _check_privileges(call, vm.vmid, changes)
    _check_values(vm, changes, removed)
    return vm, changes, removed, reverted


async def _change(call: Call, vm: Vm, changes: dict[str, str], removed: list[str], reverted: list[str]) -> None:
    digest = call.params.get("digest", "")
    async with locked(call.backend, vm):
        if digest and digest != vm.digest:
            raise failed("checksum mismatch (file change by other user?)")
        vm.check_lock()
        for name in reverted:
            vm.pending.pop(name, None)
            vm.deleted.discard(name)
        await _apply(call.backend, vm, changes, removed)


def _check_values(vm: Vm, changes: dict[str, str], removed: list[str]) -> None:
    """Refuse changes that do not fit the other options."""
    config = {name: value for name, value in (vm.effective | changes).items() if name not in removed}
    order = parse(changes.get("boot", ""), "legacy").get("order", "")
    for device in filter(None, re.split(r"[,;\s]+", order)):
        if device not in config:
            raise failed(f"invalid bootorder: device '{device}' does not exist'")
    if int(config.get("balloon", 0)) > Vm(vm.vmid, vm.host, config).memory_mib:
        raise failed("balloon value too large (must be smaller than assigned memory)")


async def _apply(backend: Backend, vm: Vm, changes: dict[str, str], removed: list[str]) -> None:
    """Store the changes; on a running VM, those that cannot be hot-plugged become pending."""
    for name, value in changes.items():
        if DRIVE.fullmatch(name):
            changes[name] = await attach_disk(backend, vm, name, value)
    for name, value in stored_options(backend, changes).items():
        vm.deleted.discard(name)
        if vm.running and not _hot_plugged(name):
            vm.pending[name] = value
        else:
            vm.pending.pop(name, None)
            replaced = vm.config.get(name, "") if DRIVE.fullmatch(name) else ""
            vm.config[name] = value
            if replaced and parse(replaced, "file")["file"] != parse(value, "file")["file"]:
                _keep_unused(backend, vm, replaced)
    for name in removed:
        vm.pending.pop(name, None)
        if vm.running and not _hot_plugged(name) and name in vm.config:
            vm.deleted.add(name)
        elif (value := vm.config.pop(name, "")) and DRIVE.fullmatch(name):
            _keep_unused(backend, vm, value)
        elif value and name.startswith("unused"):
            del backend.inventory.volumes(vm.host, value.partition(":")[0])[value]


def _keep_unused(backend: Backend, vm: Vm, value: str) -> None:
    """Keep the detached disk of a VM as `unusedN`."""
    drive = parse(value, "file")
    volume = find_volume(backend, vm.host, drive["file"])
    if volume and volume.vmid == vm.vmid and drive.get("media") != "cdrom":
        number = next(number for number in range(256) if f"unused{number}" not in vm.config)
        vm.config[f"unused{number}"] = volume.volid


def _hot_plugged(name: str) -> bool:
    device = NET.fullmatch(name) or DRIVE.fullmatch(name)
    return name in _HOT_PLUGGED or bool(device) or name.startswith(("ipconfig", "unused"))


def resize(call: Call) -> str:
    """PUT …/resize."""
    backend, vm = call.backend, call.backend.inventory.vm(call.node, call.vmid)
    call.token.need(f"/vms/{vm.vmid}", "VM.Config.Disk")
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
    unreferenced = call.params.get("destroy-unreferenced-disks") == "1"
    _check_removable(vm)

    async def work(_: Task) -> None:
        async with locked(backend, vm):
            _check_removable(vm)
            vm.check_lock()
            await backend.clock.sleep(backend.durations.destroy)
            delete_disks(backend, vm.host, vmid, config=None if unreferenced else vm.config)
            backend.machines.forget(vm.uuid)
            del backend.inventory.vms[vmid]

    return backend.tasks.fork(call.node, "qmdestroy", str(vmid), call.token.id, work)


def _check_removable(vm: Vm) -> None:
    if vm.config.get("protection") == "1":
        raise failed(f"can't remove VM {vm.vmid} - protection mode enabled")
    if vm.running:
        raise failed(f"VM {vm.vmid} is running - destroy failed")
