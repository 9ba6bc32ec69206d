"""Proxmox VE: virtual machines, their images and their tasks, over its REST API with a token."""

from fluobook.clients.proxmox.client import ProxmoxClient
from fluobook.clients.proxmox.session import ProxmoxEndpoint, VmLocked
from fluobook.clients.proxmox.tasks import TaskStatus, Upid

__all__ = ["ProxmoxClient", "ProxmoxEndpoint", "TaskStatus", "Upid", "VmLocked"]
