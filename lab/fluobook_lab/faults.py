"""The faults that the lab can inject, by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULTS: dict[str, str] = {
    "argocd.repository-down-once": "the repository of an Application is unreachable when Argo CD resolves its revision",
    "argocd.webhook-refuses-once": "a webhook that is not ready yet refuses an object that Argo CD applies",
    "kube.api-429": "a request to the Kubernetes API is answered with 429, too many requests",
    "kube.api-500": "a request to the Kubernetes API is answered with 500",
    "kube.foreign-csr": "a machine that is not in the params requests a kubelet's serving certificate",
    "kube.image-pull-fails": "images cannot be pulled, except those of kube-system",
    "kube.watch-gone": "the history is compacted when a watch begins: all watches get 410 Gone",
    "factory.503-once": "the Image Factory answers a request with 503",
    "factory.extension-missing": "the Image Factory has no siderolabs/iscsi-tools for any version",
    "proxmox.api-slow": "every answer of Proxmox VE takes one second longer",
    "proxmox.create-500-once": "the creation of a VM is answered with 500 and does not happen",
    "proxmox.create-596-once": "the creation of a VM succeeds, but is answered with 596",
    "proxmox.create-lost-once": "the creation of a VM succeeds, but the connection breaks before the answer",
    "proxmox.create-task-fails": "the task that creates a VM fails, and the VM does not exist",
    "proxmox.download-fails": "the download of an image is interrupted",
    "proxmox.foreign-vm-with-our-name": "a foreign VM has the name of the first node",
    "proxmox.foreign-vmid": "a foreign VM has the id of the first node",
    "proxmox.lock-backup": "a backup locks a VM for 20 s when it is to be started or changed",
    "proxmox.resources-stale": "/cluster/resources shows names and states that are up to 10 s old",
    "proxmox.shutdown-ignored": "guests ignore a shutdown",
    "proxmox.start-500-once": "the start of a VM is answered with 500 and does not happen",
    "proxmox.start-596-once": "the start of a VM succeeds, but is answered with 596",
    "proxmox.start-lost-once": "the start of a VM succeeds, but the connection breaks before the answer",
    "proxmox.start-task-fails": "the task that starts a VM fails",
    "proxmox.storage-full": "all storages are full",
    "proxmox.task-status-400-once": "the status of a task is requested before the task is known",
    "proxmox.task-status-500-once": "the request for the status of a task is answered with 500",
    "proxmox.token-no-rights": "the token has no privileges",
    "proxmox.token-wrong": "no token is accepted",
    "talos.apply-busy-once": "a node reports that another configuration is being applied",
    "talos.apply-lost-once": "a configuration is applied, but the connection breaks before the answer",
    "talos.bootstrap-lost-once": "etcd is bootstrapped, but the connection breaks before the answer",
    "talos.install-fails-once": "an installation fails, and the node returns to maintenance mode",
    "talos.read-lost-once": "the connection to a node breaks while a resource is read",
    "talos.time-not-synced": "nodes never synchronise their clocks, so etcd cannot be bootstrapped",
    "talos.uuid-byte-order": "nodes report their SMBIOS uuid with the first three fields in the other byte order",
}
"""Every fault: its name and its effect."""


class Faults:
    """The faults of one lab; a name that is given n times happens n times.

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
        """Inject a fault while the lab runs."""
        Faults([name])
        self._left[name] += times

    def take(self, name: str) -> bool:
        """Whether the fault happens now; counts as one of its times."""
        happens = self._left[name] > 0
        self._left[name] -= happens
        return happens

    def on(self, name: str) -> bool:
        """Whether the fault is injected; it lasts."""
        return self._left[name] > 0
