"""A configured node, over mutual TLS: bootstrap, credentials, services, etcd, and its life cycle."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from fluobook.clients.rpc import Connection
from fluobook.clients.talos.api import Node
from fluobook.clients.talos.resources import READ
from fluobook.clients.talos.tls import mutual
from fluobook.clients.talos.values import EtcdMember, Service, Snapshot
from fluobook.errors import OutsideError
from fluobook.machine.pki import KeyPair
from fluobook.wire.generated.common_pb2 import ContainerDriver
from fluobook.wire.generated.machine_grpc import MachineServiceStub
from fluobook.wire.generated.machine_pb2 import (
    BootstrapRequest,
    ContainersRequest,
    EtcdMemberListRequest,
    EtcdSnapshotRequest,
    LogsRequest,
    RebootRequest,
    ResetPartitionSpec,
    ResetRequest,
    UpgradeRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fluobook.clients.rpc import Address

POD_NAMESPACE = "k8s.io"
"""Where containerd keeps the containers of pods."""


class TalosNode(Node):
    """A node that has a configuration; the roles in our certificate decide what it allows."""

    def bootstrap(self) -> None:
        """Start etcd on this node: once in the life of a cluster, on one control plane.

        Raises:
            Conflict: etcd has data already; fine if it is our own (F28).
            OutsideError: FAILED_PRECONDITION, not yet (F27); UNIMPLEMENTED, this is a worker.
        """
        self._change("Bootstrap", BootstrapRequest())

    def kubeconfig(self) -> str:
        """An administrator's kubeconfig, made by the node; it is a secret."""
        replies = self._connection.stream(MachineServiceStub, "Kubeconfig", Empty(), timeout=READ)
        archive = b"".join(reply.bytes for reply in replies)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            file = tar.extractfile("kubeconfig")
            if file is None:
                raise OutsideError(f"talos at {self.address} sent no kubeconfig", system="talos")
            return file.read().decode()

    def etcd_members(self) -> tuple[EtcdMember, ...]:
        """The members of etcd, as this control plane sees them.

        Raises:
            OutsideError: etcd does not run yet.
        """
        reply = self._read("EtcdMemberList", EtcdMemberListRequest())
        return tuple(
            EtcdMember(f"{m.id:016x}", m.hostname, tuple(m.peer_urls), tuple(m.client_urls), m.is_learner)
            for m in reply.members
        )

    def services(self) -> tuple[Service, ...]:
        """The node's system services."""
        return tuple(
            Service(s.id, s.state, None if s.health.unknown else s.health.healthy, s.health.last_message)
            for s in self._read("ServiceList").services
        )

    def logs(self, name: str, *, lines: int = 50) -> str:
        """The last lines of a log.

        Args:
            name: of a system service ("kubelet"), of "controller-runtime", or of a static pod's container
                ("kube-apiserver"), whose latest instance is meant; "" if there is none.
            lines: how many.

        Raises:
            OutsideError: there is no such log.
        """
        request = LogsRequest(namespace="system", id=name, tail_lines=lines)
        if name.startswith("kube-"):
            container = self._container(name)
            request = LogsRequest(namespace=POD_NAMESPACE, id=container, driver=ContainerDriver.CRI, tail_lines=lines)
            if not container:
                return ""
        replies = self._connection.stream(MachineServiceStub, "Logs", request, timeout=READ)
        return b"".join(reply.bytes for reply in replies).decode(errors="replace")

    def _container(self, name: str) -> str:
        """The id of a static pod's container; exited ones are listed too."""
        request = ContainersRequest(namespace=POD_NAMESPACE, driver=ContainerDriver.CRI)
        listed = self._read("Containers", request).containers
        return next((one.id for one in reversed(listed) if one.name == name and one.id.count(":") > 1), "")

    def reboot(self) -> None:
        """Restart the node; it is gone for a while."""
        self._change("Reboot", RebootRequest())

    def reset(self, *, graceful: bool = True, reboot: bool = True, partitions: Iterable[str] = ()) -> None:
        """Wipe the system disk, or only some of its partitions ("EPHEMERAL"); what they hold is lost.

        Args:
            graceful: leave etcd and drain first.
            reboot: start again afterwards, into maintenance mode; else power off.
            partitions: labels; none means the whole system disk.
        """
        wipe = [ResetPartitionSpec(label=label, wipe=True) for label in partitions]
        mode = ResetRequest.WipeMode.SYSTEM_DISK
        self._change("Reset", ResetRequest(graceful=graceful, reboot=reboot, system_partitions_to_wipe=wipe, mode=mode))

    def upgrade(self, image: str, *, stage: bool = False) -> None:
        """Install another Talos image and reboot into it (MachineService.Upgrade: deprecated, served up to 1.17)."""
        self._change("Upgrade", UpgradeRequest(image=image, preserve=True, stage=stage))

    def etcd_snapshot(self, path: Path, *, timeout: float = 600.0) -> Snapshot:
        """Stream a snapshot of etcd into a file, which appears when it is whole, readable by its owner alone."""
        partial = path.with_name(path.name + ".partial")
        digest, size = hashlib.sha256(), 0
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            request = EtcdSnapshotRequest()
            for reply in self._connection.stream(MachineServiceStub, "EtcdSnapshot", request, timeout=timeout):
                size += file.write(reply.bytes)
                digest.update(reply.bytes)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        return Snapshot(path, size, digest.hexdigest())


def connect(address: Address, *, ca: str, crt: str, key: str) -> TalosNode:
    """The configured node at an address; nothing is sent yet.

    Args:
        address: the node; its certificate is verified for `address.name`.
        ca: Talos' certificate authority, PEM.
        crt: our client certificate, PEM.
        key: its key, PEM, with Talos' label or OpenSSL's.
    """
    return TalosNode(Connection(address, system="talos", context=mutual(ca, KeyPair(crt, key))))
