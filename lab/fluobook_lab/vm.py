"""What a virtual machine tells the Talos node that boots in it: the seam between the lab's Proxmox and its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VmBoot:
    """A virtual machine that has just been powered on.

    `uuid` is the SMBIOS uuid, `mac` that of net0 (upper case), `disks` are (id, GiB) pairs in bus order,
    `image` is the file in the ISO drive ("" for none), `address` is CIDR from the cloud-init drive ("" for DHCP).
    """

    vmid: int
    name: str
    host: str
    uuid: str
    mac: str
    cores: int
    memory_mib: int
    disks: tuple[tuple[str, int], ...]
    image: str
    address: str
    gateway: str
    hostname: str
    agent: bool


class Machines(Protocol):
    """Whoever boots and stops what runs inside virtual machines; both calls return at once."""

    def power_on(self, vm: VmBoot) -> None:
        """Boot it."""

    def power_off(self, uuid: str) -> None:
        """Stop it at once, as pulling the plug does."""
