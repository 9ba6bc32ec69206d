"""From a virtual machine's configuration to what the machine that boots in it sees."""

from __future__ import annotations

from fluobook_lab.proxmox.options import DRIVE, bytes_of, parse, read_net
from fluobook_lab.proxmox.site import GIB, Vm
from fluobook_lab.vm import VmBoot

_BUSES = ("scsi", "virtio", "sata", "ide")


def boot_of(vm: Vm) -> VmBoot:
    """What a machine that is switched on now has: its identity, its disks, the image in its drive, its cloud-init."""
    config = vm.config
    network = parse(config.get("ipconfig0", ""), "ip") if _has_cloud_init(config) else {}
    address = network.get("ip", "")
    return VmBoot(
        vmid=vm.vmid,
        name=vm.name,
        host=vm.host,
        uuid=vm.uuid,
        mac=read_net(config["net0"])[1].upper() if "net0" in config else "",
        cores=int(config.get("sockets", 1)) * int(config.get("cores", 1)),
        memory_mib=int(config.get("memory", 512)),
        disks=_disks(config),
        image=_image(config),
        address="" if address == "dhcp" else address,
        gateway=network.get("gw", ""),
        hostname=vm.name if _has_cloud_init(config) else "",
        agent=_agent(config.get("agent", "0")),
    )


def _drives(config: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    names = sorted((name for name in config if DRIVE.fullmatch(name)), key=_bus_order)
    return [(name, parse(config[name], "file")) for name in names]


def _bus_order(name: str) -> tuple[int, int]:
    bus = name.rstrip("0123456789")
    return (_BUSES.index(bus) if bus in _BUSES else len(_BUSES), int(name.removeprefix(bus)))


def _disks(config: dict[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (name, bytes_of(drive["size"]) // GIB)
        for name, drive in _drives(config)
        if drive.get("media") != "cdrom" and not name.startswith(("efidisk", "tpmstate"))
    )


def _image(config: dict[str, str]) -> str:
    files = [drive["file"] for _, drive in _drives(config) if drive.get("media") == "cdrom"]
    return next((file.rpartition("/")[2] for file in files if ":iso/" in file), "")


def _has_cloud_init(config: dict[str, str]) -> bool:
    return any("cloudinit" in drive["file"] for _, drive in _drives(config))


def _agent(value: str) -> bool:
    return parse(value, "enabled").get("enabled") == "1"
