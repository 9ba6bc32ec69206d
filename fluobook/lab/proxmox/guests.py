"""Virtual machines: made, changed, resized, removed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from fluobook.lab.proxmox import power, storage
from fluobook.lab.proxmox.errors import TaskError, absent, died, forbidden, wrong
from fluobook.lab.proxmox.locks import locked
from fluobook.lab.proxmox.options import (
    CREATE_ONLY,
    DRIVE,
    NET,
    NEW_DISK,
    UPDATE_ONLY,
    parse,
    read_back,
    read_net,
    render,
    show_net,
    size_of,
    sorted_tags,
    validate,
)
from fluobook.lab.proxmox.rights import check_options
from fluobook.lab.proxmox.site import GIB, Vm, Volume

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fluobook.lab.proxmox.context import Call, World
    from fluobook.lab.proxmox.tasks import Task

AT_ONCE = frozenset(
    {
        *("cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"),
        *("description", "hookscript", "name", "onboot", "protection", "startup", "tags"),
    }
)
"""What a running machine takes over at once; network, disks and addresses do too. All else waits for its next start."""


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
    vm.config = settle(world, params | disks)
    vm.config.setdefault("smbios1", f"uuid={new_uuid(world)}")
    vm.config.setdefault("vmgenid", new_uuid(world))
    vm.config["meta"] = f"creation-qemu=10.0.2,ctime={task.start}"
    vm.config.setdefault("boot", "order=" + ";".join(name for name in ("scsi0", "ide2", "net0") if name in vm.config))


def settle(world: World, options: dict[str, str]) -> dict[str, str]:
    """Options in the form in which they are stored: hardware addresses filled in, tags in order."""
    stored = dict(options)
    for name, value in options.items():
        if NET.fullmatch(name):
            model, mac, rest = read_net(value)
            stored[name] = show_net(model, mac or _mac(world), rest)
    if "tags" in stored:
        stored["tags"] = sorted_tags(stored["tags"])
    return stored


def new_uuid(world: World) -> str:
    """A uuid that Proxmox VE makes up."""
    return str(uuid.UUID(int=world.random.getrandbits(128), version=4))


def _mac(world: World) -> str:
    while True:
        mac = "BC:24:11:{:02X}:{:02X}:{:02X}".format(*world.random.randbytes(3))
        if mac not in world.site.taken_macs():
            return mac


async def _drives(world: World, vm: Vm, params: dict[str, str], task: Task) -> dict[str, str]:
    if world.faults.take("proxmox.create-task-fails"):
        raise TaskError("start failed: org.freedesktop.systemd1: connection timed out")
    drives = sorted(name for name in params if DRIVE.fullmatch(name))
    made = {}
    for name in drives:
        made[name] = await drive(world, vm, name, params[name])
        task.log.append(f"{name}: successfully created disk '{made[name]}'")
    return made


async def drive(world: World, vm: Vm, name: str, value: str) -> str:
    """Make the disk that a value asks for, or find the volume it names; the value as it is stored.

    Raises:
        TaskError: the volume does not exist, or there is no room.
    """
    wanted = parse(value, "file")
    wanted.pop("format", None)
    new, source = NEW_DISK.fullmatch(wanted["file"]), wanted.pop("import-from", "")
    if wanted["file"] in {"none", "cdrom"}:
        return render(wanted, "file")
    if wanted["file"].endswith(":cloudinit"):
        return _cloud_init(world, vm, wanted)
    if new is None:
        return _existing(world, vm, wanted)
    where = new["storage"]
    size = storage.special_size(name, world.site.storage(where).type) or int(float(new["gib"]) * GIB)
    if source:
        size = _source_size(world, vm, source)
    volume = await storage.allocate(world, vm.host, where, vm.vmid, size)
    return render(wanted | {"file": volume.volid, "size": size_of(size)}, "file")


def _cloud_init(world: World, vm: Vm, wanted: dict[str, str]) -> str:
    where = wanted["file"].partition(":")[0]
    directory = world.site.storage(where).type == "dir"
    name = f"vm-{vm.vmid}-cloudinit"
    volid = f"{where}:{vm.vmid}/{name}.qcow2" if directory else f"{where}:{name}"
    world.site.volumes(vm.host, where)[volid] = Volume(volid, "images", storage.TPM_SIZE, vm.vmid)
    return render(wanted | {"file": volid, "media": "cdrom"}, "file")


def _existing(world: World, vm: Vm, wanted: dict[str, str]) -> str:
    volume = storage.find(world, vm.host, wanted["file"])
    if volume is None:
        raise TaskError(f"volume {wanted['file']} does not exist")
    return render(wanted | {"size": size_of(volume.size)}, "file")


def _source_size(world: World, vm: Vm, source: str) -> int:
    volume = storage.find(world, vm.host, source)
    if volume is None:
        raise TaskError(f"cannot import from '{source}' - volume {source} does not exist")
    return volume.size


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
            changes[name] = await drive(world, vm, name, _with_volume(vm, name, value))
    for name, value in settle(world, changes).items():
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
