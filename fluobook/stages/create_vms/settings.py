"""The settings of a node's VM: what is written at its creation, and what happens when one of them differs later."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fluobook.files import packaged
from fluobook.params import Node, Platform

TAG = "fluobook"
MIB = 1024

Config = Mapping[str, Any]
"""The options of a VM, as Proxmox VE has them or as they are sent to it."""


class Treatment(StrEnum):
    """What happens when a setting differs from the params."""

    LIVE = "changed"
    CYCLE = "changed, with a power cycle of a running VM"
    GROW = "grown; a disk never shrinks"
    MOVE = "refused: an administrator moves the disk"
    REPLACE = "refused: the node is replaced"
    IDENTITY = "the VM is then not managed by fluobook"
    IGNORED = "not compared"


LIVE, CYCLE, GROW, MOVE, REPLACE, IDENTITY, IGNORED = Treatment
_TABLES: dict[str, Any] = packaged(__package__, "settings.yaml")
TREATMENT: Mapping[str, Mapping[str, Treatment]] = {
    option: {part: Treatment[name] for part, name in parts.items()} for option, parts in _TABLES["treatment"].items()
}
"""For each option that is written at creation its compared parts ("": the whole) and their treatment."""
_DEFAULTS: Mapping[str, Mapping[str, str]] = _TABLES["defaults"]
_BARE: Mapping[str, str] = _TABLES["bare"]
_CLOUD_INIT = ("ide0", "ipconfig0", "nameserver")


@dataclass(frozen=True)
class Difference:
    """One setting that differs from the params."""

    option: str
    part: str
    now: str
    wanted: str
    treatment: Treatment

    def __str__(self) -> str:
        name = self.option if self.treatment is GROW else f"{self.option} {self.part}".rstrip()
        return f"{name} {self.now or 'none'} → {self.wanted or 'none'}"

    @property
    def cold(self) -> bool:
        """Whether a running VM takes it over only with a power cycle."""
        return self.treatment is CYCLE


def tags(platform: Platform) -> str:
    """The tags of our VMs: ours, the cluster's, and those of the params."""
    return ";".join([TAG, f"{TAG}-{platform.cluster.name}", *platform.vm.tags])


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
    endpoint, network = platform.endpoint_of(node), platform.network
    vlan = f",tag={network.vlan}" if network.vlan else ""
    mtu = f",mtu={network.mtu}" if network.mtu != 1500 else ""  # noqa: PLR2004 (Ethernet's own)
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
        "net0": f"virtio={node.mac},bridge={network.bridge}{vlan}{mtu},firewall=0",
        "ide2": f"{endpoint.image_storage}:iso/{image},media=cdrom",
        # The empty disk falls through to the ISO; an installed one never boots the ISO again.
        "boot": "order=scsi0;ide2",
        "agent": f"enabled={int(platform.vm.agent)}",
        "onboot": int(platform.vm.on_boot),
        "serial0": "socket",
        "ostype": "l26",
        "tags": tags(platform),
        "smbios1": f"uuid={node.uuid}",
        **{disk: f"{endpoint.disk_storage}:{size},discard=on,ssd=1" for disk, size in disks(node).items()},
    }
    if node.start_order is not None:
        params["startup"] = f"order={node.start_order}"
    if platform.vm.pool:
        params["pool"] = platform.vm.pool
    if platform.vm.bios == "ovmf":
        params["efidisk0"] = f"{endpoint.disk_storage}:1,efitype=4m,pre-enrolled-keys=0"
    if network.addressing == "static":
        # The drive that gives Talos its address and name before it has a configuration.
        params |= {
            "ide0": f"{endpoint.disk_storage}:cloudinit",
            "ipconfig0": f"ip={node.address}/{str(network.cidr).split('/')[1]},gw={network.gateway}",
            "nameserver": " ".join(str(server) for server in network.nameservers),
        }
    return params


def uuid_of(config: Config) -> str:
    """The SMBIOS uuid in a VM's configuration, lower case; empty if there is none."""
    match = re.search(r"uuid=([0-9a-fA-F-]{36})", str(config.get("smbios1", "")))
    return match.group(1).lower() if match else ""


def tags_of(config: Config) -> set[str]:
    """The tags in a VM's configuration."""
    return {tag for tag in re.split(r"[;, ]", str(config.get("tags", ""))) if tag}


def differing(platform: Platform, node: Node, config: Config) -> Iterator[Difference]:
    """The settings in which a VM's configuration differs from the params; options of others are left alone."""
    wanted = create_params(platform, node, "")
    for option, parts in TREATMENT.items():
        if option == "tags":
            if missing := set(wanted["tags"].split(";")) - tags_of(config):
                present = ";".join(sorted(tags_of(config)))
                yield Difference("tags", "", present, f"with {';'.join(sorted(missing))}", LIVE)
        elif option in wanted or (option in _CLOUD_INIT and option in config):
            now, then = _parts(option, config.get(option)), _parts(option, wanted.get(option))
            for part, treatment in parts.items():
                values = now.get(part, ""), then.get(part, "")
                if treatment in (IDENTITY, IGNORED) or values[0] == values[1]:
                    continue
                if option in _CLOUD_INIT and (option in config) != (option in wanted):
                    # The source of the address changes, not the address.
                    kept = part != "ip" or option not in config or now["ip"] == node.address
                    yield Difference(option, part, *values, CYCLE if kept else REPLACE)
                elif option in config or part in ("", "order", "size", "storage" if option == "efidisk0" else ""):
                    # An absent drive is created with its size; its other options come with it.
                    yield Difference(option, part, *values, treatment)


def _parts(option: str, value: Any) -> dict[str, str]:
    """The compared parts of an option's value, in one form for what is sent and what Proxmox VE returns."""
    defaults = _DEFAULTS.get(option, {})
    if value is None:
        return dict(defaults)
    text = str(value)
    options = property_string(option, text)
    if option in ("scsi0", "scsi1", "efidisk0"):
        storage, _, volume = options.get("", "").partition(":")
        size = size_gib(options.get("size", f"{volume}G" if volume.isdigit() else "0"))
        options |= {"storage": storage, "size": f"{size:g} GiB" if size else ""}
    elif option == "ide0":
        options[""] = f"{options.get('', '').partition(':')[0]}:cloudinit" if "cloudinit" in text else text
    elif option == "ipconfig0":
        options["ip"], _, options["prefix"] = options.get("ip", "").partition("/")
    elif option == "net0":
        options["virtio"] = options.get("virtio", "").lower()
    elif option == "machine" and "q35" in text:
        options[""] = "q35"
    elif "" in TREATMENT[option]:
        options[""] = " ".join(re.split(r"[, ]+", text)) if option == "nameserver" else text.removeprefix("cputype=")
    return {**defaults, **options}


def property_string(option: str, text: str) -> dict[str, str]:
    """A property string of Proxmox VE as a mapping; a part without a key is under "" or the option's own key."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {key if sign else _BARE.get(option, ""): value if sign else key for key, sign, value in pairs}


def update(platform: Platform, node: Node, config: Config, options: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The changes that give a VM the settings of the params, and the options to remove; sizes are not among them.

    Args:
        platform: the platform.
        node: the node.
        config: the VM's present configuration.
        options: the options that may be changed.
    """
    wanted = create_params(platform, node, "")
    changes: dict[str, Any] = {}
    for option in options:
        if option == "tags":
            changes["tags"] = ";".join(sorted(tags_of(config) | set(tags(platform).split(";"))))
        elif option in ("net0", "agent", "scsi0", "scsi1", "startup") and option in config and option in wanted:
            merged = _merged(option, str(config[option]), str(wanted[option]))
            if merged != str(config[option]):
                changes[option] = merged
        elif option in wanted:
            changes[option] = wanted[option]
    return changes, [option for option in options if option in _CLOUD_INIT and option not in wanted]


def _merged(option: str, now: str, wanted: str) -> str:
    """The present property string with our parts; what an administrator has added to it stays."""
    old, new = property_string(option, now), property_string(option, wanted)
    ours = set(TREATMENT[option]) - {"storage", "size"}
    merged = {key: value for key, value in old.items() if key not in ours or key in new}
    merged |= {key: new[key] for key in ours if key in new}
    return ",".join(f"{key}={value}" if key else value for key, value in merged.items())


def size_gib(text: str) -> float:
    """A size as Proxmox VE writes it ("20G", "528K") in GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not match:
        return 0.0
    return float(match.group(1)) * {"K": 2**-20, "M": 2**-10, "G": 1, "T": 2**10, "": 2**-30}[match.group(2)]
