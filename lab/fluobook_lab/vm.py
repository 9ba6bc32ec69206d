"""The interface between the lab's Proxmox VE and the nodes that boot in its virtual machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VmBoot:
    """A virtual machine at power-on.

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
    """Boots and stops the guests of virtual machines; all calls return at once."""

    def power_on(self, vm: VmBoot) -> None:
        """Boot a guest."""

    def power_off(self, uuid: str) -> None:
        """Stop a guest at once, without a shutdown."""

    def forget(self, uuid: str) -> None:
        """Delete the content of a destroyed VM's disks."""
