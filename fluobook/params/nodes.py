"""The nodes, and what their virtual machines have in common."""

# ruff: noqa: TC002 (pydantic reads annotations when it runs)
from __future__ import annotations

from typing import Annotated, Literal

from pydantic.json_schema import SkipJsonSchema

from fluobook.params.fields import DERIVED, Count, Cpu, Flag, HostName, Ipv4, Mac, Model, NodeName, Vmid


class Vm(Model):
    """Settings of every node's virtual machine."""

    cpu: Cpu = "x86-64-v2-AES"
    """CPU type; Talos needs x86-64-v2 or newer."""
    bios: Literal["ovmf", "seabios"] = "ovmf"
    """Firmware: ovmf (UEFI) or seabios."""
    scsi_controller: Literal["virtio-scsi-pci", "virtio-scsi-single"] = "virtio-scsi-pci"
    """SCSI controller; with virtio-scsi-single some hosts show Talos no disks."""
    agent: Flag = True
    """Whether Proxmox VE talks to the guest agent."""
    on_boot: Flag = True
    """Whether the node starts with its host."""


class Node(Model):
    """One Talos node and its virtual machine."""

    name: NodeName
    """Host name, VM name and Kubernetes node name in one."""
    role: Literal["controlplane", "worker"]
    """controlplane or worker."""
    host: HostName
    """The Proxmox VE host on which the VM stands."""
    address: Ipv4
    """The node's address in network.cidr."""
    cores: Count
    """Virtual CPU cores."""
    memory_gib: Count
    """Memory in GiB."""
    boot_disk_gib: Count
    """Size of the system disk in GiB."""
    data_disk_gib: Count | None = None
    """Size of the Longhorn disk in GiB; workers have one, control planes have none."""
    vmid: Annotated[Vmid, DERIVED]
    """Number of the VM; derived from cluster and node name unless pinned."""
    mac: Annotated[Mac, DERIVED]
    """MAC address of the VM; derived from cluster and node name unless pinned."""
    uuid: SkipJsonSchema[str]
    """SMBIOS uuid by which a VM is known as ours; always derived from cluster and node name."""
