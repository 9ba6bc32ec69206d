"""How long each named wait may take."""

from __future__ import annotations

from fluobook.params.fields import Model, Seconds


class Deadlines(Model):
    """Deadlines of every named wait, in seconds."""

    image_download: Seconds = 1800
    """A host downloads the Talos image, in seconds."""
    vm_create: Seconds = 300
    """A VM and its disks are made, in seconds."""
    vm_start: Seconds = 120
    """A VM starts, in seconds."""
    vm_lock: Seconds = 300
    """Somebody else's lock on a VM goes away, in seconds."""
    maintenance: Seconds = 600
    """A started VM answers in maintenance mode, in seconds."""
    install: Seconds = 900
    """Talos installs, reboots and runs, in seconds."""
    etcd: Seconds = 600
    """etcd has all its members, in seconds."""
    nodes_ready: Seconds = 900
    """Every node is Ready with Cilium, in seconds."""
    csr: Seconds = 600
    """Every kubelet has its serving certificate, in seconds."""
    argocd: Seconds = 900
    """Argo CD runs, in seconds."""
    applications: Seconds = 3600
    """Every Application is Synced and Healthy, in seconds."""
