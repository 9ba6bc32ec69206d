"""The lab's Proxmox VE: an emulator of the REST API, as far as virtual machines, storages and tasks go."""

from fluobook_lab.proxmox.access import Token, administrator
from fluobook_lab.proxmox.context import Durations
from fluobook_lab.proxmox.server import ProxmoxLab
from fluobook_lab.proxmox.site import Host, Storage

__all__ = ["Durations", "Host", "ProxmoxLab", "Storage", "Token", "administrator"]
