"""Disks of a virtual machine: allocated, found or imported; and the options that Proxmox VE fills in itself."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from fluobook_lab.proxmox import storage
from fluobook_lab.proxmox.errors import TaskError
from fluobook_lab.proxmox.options import NET, NEW_DISK, parse, read_net, render, show_net, size_of, sorted_tags
from fluobook_lab.proxmox.site import GIB, Vm, Volume

if TYPE_CHECKING:
    from fluobook_lab.proxmox.context import World


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


async def make(world: World, vm: Vm, name: str, value: str) -> str:
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
