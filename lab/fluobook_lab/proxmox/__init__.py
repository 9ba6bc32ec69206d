"""The lab's Proxmox VE: the REST API for virtual machines, storages and tasks."""

from fluobook_lab.proxmox.model import Durations, Host, Storage, Token, administrator
from fluobook_lab.proxmox.server import ProxmoxLab

__all__ = ["Durations", "Host", "ProxmoxLab", "Storage", "Token", "administrator"]
