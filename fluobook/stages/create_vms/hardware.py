"""A node's virtual machine as Proxmox VE parameters, and the part of them that is ours to keep.

Owned are: name, cores, memory, CPU type, tags, the sizes of our disks (which only grow), the MAC address, bridge and
VLAN of net0, and start at boot. The rest of a VM is its administrator's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Node, Platform

TAG = "fluobook"
MIB = 1024


@dataclass(frozen=True)
class Difference:
    """One owned field that is not as it should be.

    `cold` means that a running VM takes it over only with a power cycle.
    """

    field: str
    now: str
    wanted: str
    cold: bool = True

    def __str__(self) -> str:
        return f"{self.field} {self.now} → {self.wanted}"


def tags(platform: Platform) -> str:
    """The tags of our VMs: ours and the cluster's."""
    return f"{TAG};{TAG}-{platform.cluster.name}"


def net0(platform: Platform, node: Node) -> str:
    """The network card."""
    network = platform.network
    vlan = f",tag={network.vlan}" if network.vlan else ""
    mtu = f",mtu={network.mtu}" if network.mtu != 1500 else ""  # noqa: PLR2004 (Ethernet's own)
    return f"virtio={node.mac},bridge={network.bridge}{vlan}{mtu},firewall=0"


def disks(node: Node) -> dict[str, int]:
    """Our disks and their sizes in GiB."""
    return {"scsi0": node.boot_disk_gib} | ({"scsi1": node.data_disk_gib} if node.data_disk_gib else {})


def create_params(platform: Platform, node: Node, image: str) -> dict[str, Any]:
    """The parameters that create a node's VM.

    Args:
        platform: the platform.
        node: the node.
        image: file name of the Talos ISO on the image storage.
    """
    endpoint = platform.endpoint_of(node)
    options = ",discard=on,ssd=1" + (",iothread=1" if platform.vm.scsi_controller == "virtio-scsi-single" else "")
    params = {
        "name": node.name,
        "machine": "q35",
        "bios": platform.vm.bios,
        "cpu": platform.vm.cpu,
        "sockets": 1,
        "cores": node.cores,
        "memory": node.memory_gib * MIB,
        "balloon": 0,
        "scsihw": platform.vm.scsi_controller,
        "net0": net0(platform, node),
        "ide2": f"{endpoint.image_storage}:iso/{image},media=cdrom",
        # The empty disk falls through to the ISO; an installed one never boots the ISO again.
        "boot": "order=scsi0;ide2",
        "agent": f"enabled={int(platform.vm.agent)}",
        "onboot": int(platform.vm.on_boot),
        "serial0": "socket",
        "ostype": "l26",
        "tags": tags(platform),
        "smbios1": f"uuid={node.uuid}",
        **{disk: f"{endpoint.disk_storage}:{size}{options}" for disk, size in disks(node).items()},
    }
    if platform.vm.bios == "ovmf":
        params["efidisk0"] = f"{endpoint.disk_storage}:1,efitype=4m,pre-enrolled-keys=0"
    return params | cloud_init(platform, node)


def cloud_init(platform: Platform, node: Node) -> dict[str, Any]:
    """The drive that tells Talos its address and name before it has a configuration; none where DHCP does."""
    if platform.network.addressing == "dhcp":
        return {}
    prefix = str(platform.network.cidr).split("/")[1]
    return {
        "ide0": f"{platform.endpoint_of(node).disk_storage}:cloudinit",
        "ipconfig0": f"ip={node.address}/{prefix},gw={platform.network.gateway}",
        "nameserver": " ".join(str(server) for server in platform.network.nameservers),
    }


def uuid_of(config: Mapping[str, Any]) -> str:
    """The SMBIOS uuid in a VM's configuration, lower case; empty if there is none."""
    found = re.search(r"uuid=([0-9a-fA-F-]{36})", str(config.get("smbios1", "")))
    return found.group(1).lower() if found else ""


def tags_of(config: Mapping[str, Any]) -> set[str]:
    """The tags in a VM's configuration."""
    return {tag for tag in re.split(r"[;, ]", str(config.get("tags", ""))) if tag}


def differences(
    platform: Platform, node: Node, config: Mapping[str, Any], resource: Mapping[str, Any]
) -> tuple[Difference, ...]:
    """In what owned fields a VM of ours differs from the platform.

    Args:
        platform: the platform.
        node: the node.
        config: the VM's configuration.
        resource: its line in the cluster's resources, which tells what a running VM really has.
    """
    found = [*_plain(platform, node, config), *_network(platform, node, config), *_sizes(node, config)]
    if missing := set(tags(platform).split(";")) - tags_of(config):
        found.append(
            Difference(
                "tags", ";".join(sorted(tags_of(config))) or "none", f"with {';'.join(sorted(missing))}", cold=False
            )
        )
    if not found and resource.get("status") == "running":
        found += _pending(node, resource)
    return tuple(found)


def _plain(platform: Platform, node: Node, config: Mapping[str, Any]) -> list[Difference]:
    wanted: dict[str, tuple[Any, bool]] = {
        "name": (node.name, False),
        "cores": (node.cores, True),
        "memory": (node.memory_gib * MIB, True),
        "cpu": (platform.vm.cpu, True),
        "onboot": (int(platform.vm.on_boot), False),
    }
    return [
        Difference(field, str(config.get(field, "unset")), str(value), cold)
        for field, (value, cold) in wanted.items()
        if str(config.get(field, 0 if field == "onboot" else "")) != str(value)
    ]


def _network(platform: Platform, node: Node, config: Mapping[str, Any]) -> list[Difference]:
    now, wanted = _options(str(config.get("net0", ""))), _options(net0(platform, node))
    return [
        Difference(f"net0 {key}", now.get(key, "none"), wanted.get(key, "none"))
        for key in ("virtio", "bridge", "tag")
        if now.get(key, "").lower() != wanted.get(key, "").lower()
    ]


def _sizes(node: Node, config: Mapping[str, Any]) -> list[Difference]:
    found = []
    for disk, size in disks(node).items():
        now = size_gib(_options(str(config.get(disk, ""))).get("size", "0"))
        if now != size:
            found.append(Difference(disk, f"{now:g} GiB" if now else "none", f"{size} GiB", cold=False))
    return found


def _pending(node: Node, resource: Mapping[str, Any]) -> list[Difference]:
    """What was written into the configuration but has not reached the running VM."""
    running = (int(resource.get("maxcpu", node.cores)), int(resource.get("maxmem", node.memory_gib * 2**30)) // 2**20)
    wanted = (node.cores, node.memory_gib * MIB)
    names = ("running cores", "running memory")
    return [Difference(n, str(r), str(w)) for n, r, w in zip(names, running, wanted, strict=True) if r != w]


def _options(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def size_gib(text: str) -> float:
    """A size as Proxmox VE writes it ("20G", "528K") in GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not found:
        return 0.0
    return float(found.group(1)) * {"K": 2**-20, "M": 2**-10, "G": 1, "T": 2**10, "": 2**-30}[found.group(2)]
