"""Faults that the lab can play, by name; tests and rehearsals ask for them to see that each is survived."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULTS: dict[str, str] = {
    "argocd.repository-down-once": "Argo CD does not reach the repository of an Application when it looks for a commit",
    "argocd.webhook-refuses-once": "a webhook that is not up yet refuses an object that Argo CD applies",
    "kube.api-429": "a request to the Kubernetes API is answered with 429, too many requests",
    "kube.api-500": "a request to the Kubernetes API is answered with 500",
    "kube.foreign-csr": "a machine that nobody declared asks for a kubelet's serving certificate",
    "kube.image-pull-fails": "images cannot be pulled, but for those of kube-system",
    "kube.watch-gone": "the history is compacted as a watch begins: it and all others get 410 Gone",
    "factory.503-once": "the Image Factory answers a request with 503",
    "factory.extension-missing": "the Image Factory has no siderolabs/iscsi-tools for any version",
    "proxmox.api-slow": "every answer of Proxmox VE takes a second longer",
    "proxmox.create-500-once": "creating a VM is answered with 500, and nothing is created",
    "proxmox.create-596-once": "creating a VM works, but the answer is 596",
    "proxmox.create-lost-once": "creating a VM works, but the connection breaks before the answer",
    "proxmox.create-task-fails": "the task that creates a VM ends in an error, and nothing is left",
    "proxmox.download-fails": "the download of an image breaks off",
    "proxmox.foreign-vm-with-our-name": "somebody else's VM has the name of our first node",
    "proxmox.foreign-vmid": "somebody else's VM has the id of our first node",
    "proxmox.lock-backup": "a backup locks a VM for 20 s just as it is to be started or changed",
    "proxmox.resources-stale": "/cluster/resources shows names and states that are up to 10 s old",
    "proxmox.shutdown-ignored": "guests do not listen to a shutdown",
    "proxmox.start-500-once": "starting a VM is answered with 500, and it does not start",
    "proxmox.start-596-once": "starting a VM works, but the answer is 596",
    "proxmox.start-lost-once": "starting a VM works, but the connection breaks before the answer",
    "proxmox.start-task-fails": "the task that starts a VM ends in an error",
    "proxmox.storage-full": "there is no room left on any storage",
    "proxmox.task-status-400-once": "a task is not known yet when it is asked for",
    "proxmox.task-status-500-once": "asking for a task is answered with 500",
    "proxmox.token-no-rights": "the token has no privileges at all",
    "proxmox.token-wrong": "no token is accepted",
    "talos.apply-busy-once": "a node says that another configuration is just being applied",
    "talos.apply-lost-once": "a configuration is applied, but the connection breaks before the answer",
    "talos.bootstrap-lost-once": "etcd is bootstrapped, but the connection breaks before the answer",
    "talos.install-fails-once": "an installation fails, and the node is in maintenance mode again",
    "talos.read-lost-once": "the connection to a node breaks as a resource is read",
    "talos.time-not-synced": "nodes never synchronise their clocks, so etcd is not bootstrapped",
    "talos.uuid-byte-order": "nodes tell their SMBIOS uuid with its first three fields in the other byte order",
}
"""Every fault that exists: its dotted name, and what it does. Kept sorted."""


class Faults:
    """The faults asked for in one lab; a name given n times happens n times.

    Args:
        names: names from `FAULTS`.

    Raises:
        ValueError: a name is not in `FAULTS`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._left = Counter(names)
        if unknown := sorted(set(self._left) - set(FAULTS)):
            raise ValueError(f"unknown faults {', '.join(unknown)}; known: {', '.join(sorted(FAULTS))}")

    def add(self, name: str, times: int = 1) -> None:
        """Ask for a fault while the lab runs."""
        Faults([name])
        self._left[name] += times

    def take(self, name: str) -> bool:
        """Whether the fault happens now; uses up one of its times."""
        happens = self._left[name] > 0
        self._left[name] -= happens
        return happens

    def on(self, name: str) -> bool:
        """Whether the fault was asked for; it lasts."""
        return self._left[name] > 0
