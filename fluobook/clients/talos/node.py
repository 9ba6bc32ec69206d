"""Talos nodes over gRPC: in maintenance mode, identified by their key, and configured, over mutual TLS."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING, Any, Self

from google.protobuf.empty_pb2 import Empty

from fluobook.clients.rpc import Connection
from fluobook.clients.talos.probe import MachineIdentity, mutual, unverified
from fluobook.clients.talos.probe import fingerprint as fingerprint_of
from fluobook.clients.talos.resources import (
    LINKS,
    MACHINE_STATUS,
    READ,
    SYSTEM_INFORMATION,
    Applied,
    EtcdMember,
    MachineStage,
    Service,
    Snapshot,
    Version,
    read_event,
    read_resource,
)
from fluobook.errors import FluobookError, ForeignObject, OutsideError
from fluobook.machine.pki import KeyPair
from fluobook.waiting import retry
from fluobook.wire.generated.common_pb2 import ContainerDriver
from fluobook.wire.generated.cosi_grpc import StateStub
from fluobook.wire.generated.cosi_pb2 import GetRequest, ListRequest, WatchOptions, WatchRequest
from fluobook.wire.generated.machine_grpc import MachineServiceStub
from fluobook.wire.generated.machine_pb2 import (
    ApplyConfigurationRequest,
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
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fluobook.clients.rpc import Address
    from fluobook.clients.talos.resources import Event, Kind, Resource

CHANGE = 60.0
"""Seconds that one change may take to be accepted."""
BUSY_AFTER = (0.2, 0.4, 0.8, 1.6)
"""Seconds before each repetition while the node applies another configuration."""

POD_NAMESPACE = "k8s.io"
"""Where containerd keeps the containers of pods."""

_Mode = ApplyConfigurationRequest.Mode


class Node:
    """A Talos node over one connection; blocking, safe for any thread.

    `fingerprint` is that of its server key; in maintenance mode nothing else identifies the server.
    """

    def __init__(self, connection: Connection, fingerprint: str = "") -> None:
        self.fingerprint = fingerprint
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Address:
        """Where the node is."""
        return self._connection.address

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._connection.close()

    def get(self, kind: Kind, name: str = "") -> Resource:
        """One resource, by id; without one, the only one of its kind.

        Raises:
            NotFound: there is none yet.
            AccessDenied: this Talos does not know the type, or it needs another role.
            Unreachable: no answer.
        """
        request = GetRequest(namespace=kind.namespace, type=kind.type, id=name or kind.id)
        return read_resource(self._connection.call(StateStub, "Get", request, timeout=READ, again=True).resource)

    def list(self, kind: Kind) -> tuple[Resource, ...]:
        """All resources of a kind, in Talos' order (by id)."""
        request = ListRequest(namespace=kind.namespace, type=kind.type)
        replies = self._connection.stream(StateStub, "List", request, timeout=READ)
        return tuple(read_resource(reply.resource) for reply in replies)

    def watch(self, kind: Kind, name: str = "", *, timeout: float | None = None) -> Iterator[Event]:
        """The existing resources of a kind, then every change, until closed or for `timeout` seconds.

        Raises:
            Unreachable: the connection ended; what was read may be out of date.
        """
        request = WatchRequest(namespace=kind.namespace, type=kind.type, api_version=1)
        if name or kind.id:
            request.id = name or kind.id
        else:
            request.options.CopyFrom(WatchOptions(bootstrap_contents=True))
        for reply in self._connection.follow(StateStub, "Watch", request, timeout=timeout):
            for event in reply.event:
                yield read_event(event)

    def machine_stage(self) -> MachineStage:
        """The stage of the node's start, and what it waits for."""
        spec = self.get(MACHINE_STATUS).spec
        status = spec.get("status") or {}
        unmet = tuple((entry["name"], entry["reason"]) for entry in status.get("unmetConditions") or ())
        return MachineStage(spec["stage"], bool(status.get("ready")), unmet)

    def identity(self) -> MachineIdentity:
        """Which machine this is: SMBIOS uuid, MAC addresses, key.

        Raises:
            Unreachable: no answer, or the node requires other certificates.
            ForeignObject: another key than before (maintenance mode).
        """
        information = self.get(SYSTEM_INFORMATION).spec
        links = (link.spec.get("hardwareAddr") or "" for link in self.list(LINKS))
        macs = tuple(sorted(mac.lower() for mac in links if mac))
        return MachineIdentity(str(information.get("uuid") or ""), macs, self.fingerprint)

    def version(self) -> Version:
        """The node's version and platform (Talos ≤ 1.12 refuses this in maintenance mode)."""
        reply = self._read("Version")
        return Version(reply.version.tag, reply.version.arch, reply.platform.name, reply.platform.mode)

    def apply_configuration(self, data: str, *, dry_run: bool = False) -> Applied:
        """Send a configuration; Talos decides whether a reboot is needed (mode AUTO).

        Args:
            data: all documents, as YAML.
            dry_run: only report what would change; see `Applied.unchanged`.

        Raises:
            Rejected: the configuration is invalid.
            OutsideError: FAILED_PRECONDITION, one was applied already and the node is about to reboot (F31).
            AccessDenied: the role does not allow it.
            Unreachable: no answer; the configuration may or may not have arrived.
        """
        request = ApplyConfigurationRequest(data=data.encode(), mode=_Mode.AUTO, dry_run=dry_run)
        reply = retry(lambda: self._change("ApplyConfiguration", request), if_error=_is_busy, pauses=BUSY_AFTER)
        return Applied(_Mode.Name(reply.mode), reply.mode_details, tuple(reply.warnings))

    def _read(self, method: str, request: Any = None, *, timeout: float = READ) -> Any:
        reply = self._connection.call(MachineServiceStub, method, request or Empty(), timeout=timeout, again=True)
        return self._only(reply, method)

    def _change(self, method: str, request: Any) -> Any:
        return self._only(self._connection.call(MachineServiceStub, method, request, timeout=CHANGE), method)

    def _only(self, reply: Any, method: str) -> Any:
        message = reply.messages[0]
        if message.metadata.error:
            raise OutsideError(
                f"talos at {self.address} failed {method}: {message.metadata.error}",
                system="talos",
                detail=message.metadata.error,
                facts={"address": self.address.name},
            )
        return message


class MaintenanceNode(Node):
    """A node in maintenance mode.

    Its certificate is generated at every boot and cannot be verified. So the key of the first connection is pinned,
    and every later connection must show the same key; `identity()` returns which machine has it. So the machine that
    receives a configuration is the one whose identity was checked.

    Args:
        address: the node.
        fingerprint: the key that its console shows, if it is known; else the first key is pinned.
    """

    def __init__(self, address: Address, fingerprint: str = "") -> None:
        connection = Connection(address, system="talos", context=unverified(), accept=self._accept)
        super().__init__(connection, fingerprint)

    def _accept(self, certificate: bytes) -> None:
        presented = fingerprint_of(certificate)
        if self.fingerprint and presented != self.fingerprint:
            raise ForeignObject(
                f"the node at {self._connection.address} shows another key ({presented}), not {self.fingerprint}",
                cause="the node has rebooted, or another machine answers at this address",
                remedy="compare the fingerprint on the VM's console, then run the stage again",
            )
        self.fingerprint = presented


class TalosNode(Node):
    """A configured node; the roles in our certificate decide what it allows."""

    def bootstrap(self) -> None:
        """Start etcd on this node: once in the life of a cluster, on one control plane.

        Raises:
            Conflict: etcd has data already; fine if it is our own (F28).
            OutsideError: FAILED_PRECONDITION, not yet (F27); UNIMPLEMENTED, this is a worker.
        """
        self._change("Bootstrap", BootstrapRequest())

    def kubeconfig(self) -> str:
        """An administrator's kubeconfig, issued by the node; it is a secret."""
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
                ("kube-apiserver"), of which the latest instance is read; "" if there is none.
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
        return next((c.id for c in reversed(listed) if c.name == name and c.id.count(":") > 1), "")

    def reboot(self) -> None:
        """Restart the node."""
        self._change("Reboot", RebootRequest())

    def reset(self, *, graceful: bool = True, reboot: bool = True, partitions: Iterable[str] = ()) -> None:
        """Wipe the system disk, or only some of its partitions ("EPHEMERAL"); their data is destroyed.

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
        """Stream a snapshot of etcd into a file, which appears when it is complete, with mode 0600."""
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


def maintenance(address: Address, *, fingerprint: str = "") -> MaintenanceNode:
    """The node in maintenance mode at an address; nothing is sent yet."""
    return MaintenanceNode(address, fingerprint)


def _is_busy(error: FluobookError) -> bool:
    return isinstance(error, OutsideError) and "another apply configuration is already in progress" in error.detail
