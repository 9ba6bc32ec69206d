"""Which privilege each option of a virtual machine asks for; the value decides for disks and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.proxmox.errors import died, forbidden, wrong
from fluobook_lab.proxmox.options import DRIVE, NET, NEW_DISK, parse, read_net

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.proxmox.context import Call

_BY_OPTION = {
    "VM.Config.CPU": "cores cpu cpulimit cpuunits numa sockets vcpus",
    "VM.Config.Memory": "memory balloon shares",
    "VM.Config.HWType": "acpi hotplug kvm machine scsihw smbios1 tablet vga rng0 audio0 watchdog vmgenid",
    "VM.Config.Options": "agent bios description localtime name onboot ostype protection reboot startup template tags",
    "VM.Config.Disk": "boot bootdisk",
    "VM.Config.Cloudinit": "citype ciuser cipassword ciupgrade nameserver searchdomain sshkeys",
}
PRIVILEGE = {option: privilege for privilege, options in _BY_OPTION.items() for option in options.split()}


def check_options(call: Call, vmid: int, options: Mapping[str, str], *, update: bool = False) -> None:
    """Refuse options that the token may not set, storages it may not use, bridges it may not join.

    Raises:
        PveError: 403 for rights, 400 for a storage that holds no disks, 500 for what only root may set.
    """
    for name, value in sorted(options.items()):
        if DRIVE.fullmatch(name):
            _check_drive(call, vmid, value, name=name)
        elif NET.fullmatch(name):
            call.token.need(f"/vms/{vmid}", "VM.Config.Network")
            _check_bridge(call, value)
        elif name.startswith("serial"):
            call.token.need(f"/vms/{vmid}", "VM.Config.HWType")
        elif name.startswith("ipconfig"):
            _need_any(call, vmid, "VM.Config.Cloudinit", "VM.Config.Network")
        elif name in PRIVILEGE:
            call.token.need(f"/vms/{vmid}", PRIVILEGE[name])
        elif update or name not in {"pool", "storage"}:
            raise died(f"only root can set '{name}' config")


def _need_any(call: Call, vmid: int, *privileges: str) -> None:
    if not any(call.token.may(f"/vms/{vmid}", privilege) for privilege in privileges):
        raise forbidden(f"/vms/{vmid}", *privileges)


def _check_drive(call: Call, vmid: int, value: str, *, name: str) -> None:
    drive = parse(value, "file")
    media = drive.get("media") == "cdrom" or drive["file"].endswith(":cloudinit")
    call.token.need(f"/vms/{vmid}", "VM.Config.CDROM" if media else "VM.Config.Disk")
    if drive["file"] in {"none", "cdrom"}:
        return
    storage = drive["file"].partition(":")[0]
    if new := NEW_DISK.fullmatch(drive["file"]):
        call.token.need(f"/storage/{storage}", "Datastore.AllocateSpace")
        if "images" not in call.world.site.storage(storage).content:
            raise wrong(storage=f"storage '{storage}' does not support vm images")
        if "import-from" in drive and float(new["gib"]):
            raise wrong(**{name: "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"})
    elif ":" not in drive["file"]:
        raise died(f"unable to parse volume ID '{drive['file']}'")
    elif not drive["file"].endswith((":cloudinit", ".iso")) and "vm-" not in drive["file"]:
        raise died(f"unable to parse lvm volume name '{drive['file'].partition(':')[2]}'")
    else:
        call.world.site.storage(storage)


def _check_bridge(call: Call, value: str) -> None:
    rest = read_net(value)[2]
    bridge = rest.get("bridge")
    if not bridge:
        return
    path = f"/sdn/zones/localnetwork/{bridge}" + (f"/{rest['tag']}" if "tag" in rest else "")
    call.token.need(path, "SDN.Use")
