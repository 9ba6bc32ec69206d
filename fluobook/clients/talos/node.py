"""Talos nodes over gRPC: in maintenance mode, identified by their key, and configured, over mutual TLS."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from google.protobuf.empty_pb2 import Empty

from fluobook.clients.rpc import Address, Connection
from fluobook.clients.talos import probe as tls
from fluobook.clients.talos import resources as res
from fluobook.errors import FluobookError, ForeignObject, OutsideError, TaskFailed
from fluobook.machine.pki import KeyPair
from fluobook.waiting import retry
from fluobook.wire.generated import common_pb2, cosi_pb2, machine_pb2
from fluobook.wire.generated.cosi_grpc import StateStub
from fluobook.wire.generated.machine_grpc import ImageServiceStub, LifecycleServiceStub, MachineServiceStub

CHANGE = 60.0
"""Seconds that one change may take to be accepted."""
BUSY_AFTER = (0.2, 0.4, 0.8, 1.6)
"""Seconds before each repetition while the node applies another configuration."""

CHUNK = 64 << 10
"""Bytes of an upload that are sent at once."""
MOST_BYTES = 16 << 20
"""Bytes of a kubeconfig or a log."""
POD_NAMESPACE = "k8s.io"
"""Where containerd keeps the containers of pods."""

_SYSTEM = common_pb2.ContainerdInstance(
    driver=common_pb2.ContainerDriver.CONTAINERD, namespace=common_pb2.ContainerdNamespace.NS_SYSTEM
)
"""Where Talos looks for its installer and the kubelet."""
_PODS = common_pb2.ContainerdInstance(
    driver=common_pb2.ContainerDriver.CRI, namespace=common_pb2.ContainerdNamespace.NS_CRI
)
"""Where the kubelet looks for the images of pods."""

_Mode = machine_pb2.ApplyConfigurationRequest.Mode


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

    def get(self, kind: res.Kind, name: str = "") -> res.Resource:
        """One resource, by id; without one, the only one of its kind.

        Raises:
            NotFound: there is none yet.
            AccessDenied: this Talos does not know the type, or it needs another role.
            Unreachable: no answer.
        """
        request = cosi_pb2.GetRequest(namespace=kind.namespace, type=kind.type, id=name or kind.id)
        reply = self._connection.call(StateStub, "Get", request, timeout=res.READ, again=True)
        with self._connection.reading(f"Get {kind.type}"):
            return res.read_resource(reply.resource)

    def list(self, kind: res.Kind) -> tuple[res.Resource, ...]:
        """All resources of a kind, in Talos' order (by id)."""
        request = cosi_pb2.ListRequest(namespace=kind.namespace, type=kind.type)
        replies = self._connection.stream(StateStub, "List", request, timeout=res.READ)
        with self._connection.reading(f"List {kind.type}"):
            return tuple(res.read_resource(reply.resource) for reply in replies)

    def watch(self, kind: res.Kind, name: str = "", *, timeout: float | None = None) -> Iterator[res.Event]:
        """The existing resources of a kind, then every change, until closed or for `timeout` seconds.

        Raises:
            Unreachable: the connection ended; what was read may be out of date.
        """
        request = cosi_pb2.WatchRequest(namespace=kind.namespace, type=kind.type, api_version=1)
        if name or kind.id:
            request.id = name or kind.id
        else:
            request.options.CopyFrom(cosi_pb2.WatchOptions(bootstrap_contents=True))
        for reply in self._connection.follow(StateStub, "Watch", request, timeout=timeout):
            with self._connection.reading(f"Watch {kind.type}"):
                events = [res.read_event(event) for event in reply.event]
            yield from events

    def machine_stage(self) -> res.MachineStage:
        """The stage of the node's start, and what it waits for."""
        spec = self.get(res.MACHINE_STATUS).spec
        with self._connection.reading("Get MachineStatus"):
            status = spec.get("status") or {}
            unmet = tuple((entry["name"], entry["reason"]) for entry in status.get("unmetConditions") or ())
            return res.MachineStage(spec["stage"], bool(status.get("ready")), unmet)

    def identity(self) -> tls.MachineIdentity:
        """Which machine this is: SMBIOS uuid, MAC addresses, key.

        Raises:
            Unreachable: no answer, or the node requires other certificates.
            ForeignObject: another key than before (maintenance mode).
        """
        information = self.get(res.SYSTEM_INFORMATION).spec
        links = self.list(res.LINKS)
        with self._connection.reading("Get SystemInformation"):
            macs = tuple(sorted(link.spec["hardwareAddr"].lower() for link in links if link.spec.get("hardwareAddr")))
            return tls.MachineIdentity(str(information.get("uuid") or ""), macs, self.fingerprint)

    def version(self) -> res.Version:
        """The node's version and platform (Talos ≤ 1.12 refuses this in maintenance mode)."""
        reply = self._read("Version")
        return res.Version(reply.version.tag, reply.version.arch, reply.platform.name, reply.platform.mode)

    def apply_configuration(self, data: str, *, dry_run: bool = False) -> res.Applied:
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
        request = machine_pb2.ApplyConfigurationRequest(data=data.encode(), mode=_Mode.AUTO, dry_run=dry_run)
        reply = retry(lambda: self._change("ApplyConfiguration", request), if_error=_is_busy, pauses=BUSY_AFTER)
        return res.Applied(_Mode.Name(reply.mode), reply.mode_details, tuple(reply.warnings))

    def _read(self, method: str, request: Any = None, *, timeout: float = res.READ) -> Any:
        reply = self._connection.call(MachineServiceStub, method, request or Empty(), timeout=timeout, again=True)
        return self._only(reply, method)

    def _change(self, method: str, request: Any) -> Any:
        return self._only(self._connection.call(MachineServiceStub, method, request, timeout=CHANGE), method)

    def _only(self, reply: Any, method: str) -> Any:
        with self._connection.reading(method):
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
        connection = Connection(address, system="talos", context=tls.unverified(), accept=self._accept)
        super().__init__(connection, fingerprint)

    def _accept(self, certificate: bytes) -> None:
        presented = tls.fingerprint(certificate)
        if not presented or (self.fingerprint and presented != self.fingerprint):
            raise ForeignObject(
                f"the node at {self._connection.address} shows another key ({presented}), not {self.fingerprint}",
                cause="the node has rebooted, or another machine answers at this address",
                remedy="compare the fingerprint on the VM's console, then run the stage again",
            )
        self.fingerprint = presented


class TalosNode(Node):
    """A configured node; the roles in our certificate decide what it allows."""

    def bootstrap(self, *, recover: bool = False) -> None:
        """Start etcd on this node: once in the life of a cluster, on one control plane.

        Args:
            recover: with the snapshot of `etcd_recover`. That it cannot be restored is shown by the service etcd alone.

        Raises:
            Conflict: etcd has data already; fine if it is our own (F28).
            OutsideError: FAILED_PRECONDITION, not yet (F27); UNIMPLEMENTED, this is a worker.
        """
        self._change("Bootstrap", machine_pb2.BootstrapRequest(recover_etcd=recover))

    def kubeconfig(self) -> str:
        """An administrator's kubeconfig, issued by the node; it is a secret."""
        replies = self._connection.stream(MachineServiceStub, "Kubeconfig", Empty(), timeout=res.READ)
        archive = self._joined(replies, "Kubeconfig")
        try:
            with self._connection.reading("Kubeconfig"), tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
                file = tar.extractfile("kubeconfig")
                return (file.read(MOST_BYTES) if file else b"").decode()
        except (tarfile.TarError, zlib.error, OSError):
            raise self._connection.invalid("Kubeconfig", "is no archive", archive or b"\0") from None

    def _joined(self, replies: Iterable[Any], method: str) -> bytes:
        """The bytes of a stream, up to a limit."""
        data = b""
        for reply in replies:
            data += reply.bytes
            if len(data) > MOST_BYTES:
                raise self._connection.invalid(method, f"is larger than {MOST_BYTES >> 20} MiB")
        return data

    def etcd_members(self) -> tuple[res.EtcdMember, ...]:
        """The members of etcd, as this control plane sees them.

        Raises:
            OutsideError: etcd does not run yet.
        """
        reply = self._read("EtcdMemberList", machine_pb2.EtcdMemberListRequest())
        return tuple(
            res.EtcdMember(f"{m.id:016x}", m.hostname, tuple(m.peer_urls), tuple(m.client_urls), m.is_learner)
            for m in reply.members
        )

    def etcd_status(self) -> res.EtcdStatus:
        """What this control plane's member of etcd reports of itself, and the alarms that it sees.

        Raises:
            OutsideError: etcd does not run; UNIMPLEMENTED, this is a worker.
        """
        status = self._read("EtcdStatus").member_status
        alarms = self._read("EtcdAlarmList").member_alarms
        return res.EtcdStatus(
            f"{status.member_id:016x}",
            f"{status.leader:016x}" if status.leader else "",
            status.raft_term,
            status.raft_index,
            status.raft_applied_index,
            status.is_learner,
            tuple(status.errors),
            tuple((f"{a.member_id:016x}", machine_pb2.EtcdMemberAlarm.AlarmType.Name(a.alarm)) for a in alarms),
            status.db_size,
            status.db_size_in_use,
            status.protocol_version,
            status.storage_version,
        )

    def remove_etcd_member(self, member: str) -> None:
        """Remove a dead member from etcd; a live one leaves by itself, with `reset`.

        Args:
            member: its id, in hexadecimal.

        Raises:
            NotFound: there is none of that id.
            OutsideError: there is no quorum.
        """
        self._change("EtcdRemoveMemberByID", machine_pb2.EtcdRemoveMemberByIDRequest(member_id=int(member, 16)))

    def services(self) -> tuple[res.Service, ...]:
        """The node's system services."""
        return tuple(
            res.Service(s.id, s.state, None if s.health.unknown else s.health.healthy, s.health.last_message)
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
        request = machine_pb2.LogsRequest(namespace="system", id=name, tail_lines=lines)
        if name.startswith("kube-"):
            container = self._container(name)
            request = machine_pb2.LogsRequest(
                namespace=POD_NAMESPACE, id=container, driver=common_pb2.ContainerDriver.CRI, tail_lines=lines
            )
            if not container:
                return ""
        replies = self._connection.stream(MachineServiceStub, "Logs", request, timeout=res.READ)
        return self._joined(replies, "Logs").decode(errors="replace")

    def _container(self, name: str) -> str:
        """The id of a static pod's container; exited ones are listed too."""
        request = machine_pb2.ContainersRequest(namespace=POD_NAMESPACE, driver=common_pb2.ContainerDriver.CRI)
        listed = self._read("Containers", request).containers
        return next((c.id for c in reversed(listed) if c.name == name and c.id.count(":") > 1), "")

    def reboot(self) -> None:
        """Restart the node."""
        self._change("Reboot", machine_pb2.RebootRequest())

    def reset(self, *, graceful: bool = True, reboot: bool = True, partitions: Iterable[str] = ()) -> None:
        """Wipe the system disk, or only some of its partitions ("EPHEMERAL"); their data is destroyed.

        Args:
            graceful: leave etcd and drain first.
            reboot: start again afterwards, into maintenance mode; else power off.
            partitions: labels; none means the whole system disk.
        """
        wipe = [machine_pb2.ResetPartitionSpec(label=label, wipe=True) for label in partitions]
        mode = machine_pb2.ResetRequest.WipeMode.SYSTEM_DISK
        self._change(
            "Reset",
            machine_pb2.ResetRequest(graceful=graceful, reboot=reboot, system_partitions_to_wipe=wipe, mode=mode),
        )

    def upgrade(self, image: str, *, stage: bool = False) -> None:
        """Install another Talos image and reboot into it (MachineService.Upgrade: deprecated, served up to 1.17).

        Neither `preserve` nor `force` is sent. Talos keeps the data of the node without them since 1.8, and with either
        it skips its check that etcd survives the node's absence.

        Raises:
            OutsideError: Talos is not installed, or etcd has two members or an unhealthy one.
        """
        self._change("Upgrade", machine_pb2.UpgradeRequest(image=image, stage=stage))

    def pull(self, image: str, *, timeout: float, pods: bool = False) -> None:
        """Fetch an image into the node: for Talos itself, from which `install` takes it, or for pods.

        Raises:
            OutsideError: the registry does not have it, or cannot be reached.
        """
        request = machine_pb2.ImageServicePullRequest(containerd=_PODS if pods else _SYSTEM, image_ref=image)
        for _ in self._connection.stream(ImageServiceStub, "Pull", request, timeout=timeout):
            pass

    def install(self, image: str, *, timeout: float) -> None:
        """Install an image that was pulled, for the next boot (LifecycleService.Upgrade, Talos 1.13 and later).

        Talos checks nothing about etcd here, drains nothing and does not restart.

        Raises:
            TaskFailed: the installer failed; its last lines are the detail.
            OutsideError: the image was not pulled, or another installation is at work.
        """
        request = machine_pb2.LifecycleServiceUpgradeRequest(
            containerd=_SYSTEM, source=machine_pb2.InstallArtifactsSource(image_name=image)
        )
        lines, code = [], None
        for reply in self._connection.stream(LifecycleServiceStub, "Upgrade", request, timeout=timeout):
            if reply.progress.HasField("exit_code"):
                code = reply.progress.exit_code
            else:
                lines.append(reply.progress.message)
        if code != 0:
            ended = f"exit code {code}" if code is not None else "no exit code"
            raise TaskFailed(
                f"the installer of {image} failed on {self.address.name}: {ended}; {lines[-1] if lines else ''}",
                system="talos",
                detail="\n".join(lines[-10:]),
                facts={"address": self.address.name},
            )

    def boot_id(self) -> str:
        """The id of the present boot: another one after each restart. Needs os:admin."""
        request = machine_pb2.ReadRequest(path="/proc/sys/kernel/random/boot_id")
        replies = self._connection.stream(MachineServiceStub, "Read", request, timeout=res.READ)
        return self._joined(replies, "Read").decode(errors="replace").strip()

    def forfeit_leadership(self) -> str:
        """Let another member of etcd lead; its name, or "" if this one did not lead.

        Raises:
            OutsideError: it is the only member.
        """
        return str(self._change("EtcdForfeitLeadership", machine_pb2.EtcdForfeitLeadershipRequest()).member)

    def rollback(self) -> None:
        """Boot the image before the last upgrade. Talos checks nothing: neither etcd nor the configuration."""
        self._change("Rollback", machine_pb2.RollbackRequest())

    def etcd_snapshot(self, path: Path, *, timeout: float = 600.0) -> res.Snapshot:
        """Stream a snapshot of etcd into a file, which appears when it is complete, with mode 0600."""
        partial = path.with_name(path.name + ".partial")
        digest, size = hashlib.sha256(), 0
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            request = machine_pb2.EtcdSnapshotRequest()
            for reply in self._connection.stream(MachineServiceStub, "EtcdSnapshot", request, timeout=timeout):
                size += file.write(reply.bytes)
                digest.update(reply.bytes)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        return res.Snapshot(path, size, digest.hexdigest())

    def etcd_recover(self, data: bytes, *, timeout: float) -> None:
        """Upload a snapshot, which `bootstrap` restores. Talos checks nothing about it yet.

        Raises:
            OutsideError: the node has no file system for it yet; UNIMPLEMENTED, this is a worker.
        """
        parts = (common_pb2.Data(bytes=data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))
        self._only(self._connection.upload(MachineServiceStub, "EtcdRecover", parts, timeout=timeout), "EtcdRecover")


def connect(address: Address, *, ca: str, crt: str, key: str) -> TalosNode:
    """The configured node at an address; nothing is sent yet.

    Args:
        address: the node; its certificate is verified for `address.name`.
        ca: Talos' certificate authority, PEM.
        crt: our client certificate, PEM.
        key: its key, PEM, with Talos' label or OpenSSL's.
    """
    return TalosNode(Connection(address, system="talos", context=tls.mutual(ca, KeyPair(crt, key))))


def maintenance(address: Address, *, fingerprint: str = "") -> MaintenanceNode:
    """The node in maintenance mode at an address; nothing is sent yet."""
    return MaintenanceNode(address, fingerprint)


def _is_busy(error: FluobookError) -> bool:
    return isinstance(error, OutsideError) and "another apply configuration is already in progress" in error.detail
