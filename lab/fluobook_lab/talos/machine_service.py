"""machine.MachineService of a node, with the error messages of Talos 1.13."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any
from uuid import UUID

import yaml
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.kubernetes import snapshot
from fluobook.machine.pki import issue, openssl_key
from fluobook.wire.generated import machine_pb2 as api
from fluobook.wire.generated.common_pb2 import Data
from fluobook_lab.talos.config import InvalidConfigurationError, ask, difference, load, needs_reboot, pair, validate
from fluobook_lab.talos.node import ServiceState, etcd_version
from fluobook_lab.talos.observing import Observing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.node import Etcd, EtcdMember

_Mode, _Wipe = api.ApplyConfigurationRequest.Mode, api.ResetRequest.WipeMode
ADMIN = "os:admin"
CHUNK = 32 * 1024
JUDGED = "v1.13."
"""The versions of Talos whose own code can be asked about a configuration."""
WRITES = 1
"""Writes to etcd in a simulated second: few, since members are read one after the other while simulated time flies."""
ALLOCATED, IN_USE = 20 << 20, 8 << 20
"""Bytes of etcd's database on the disk, and of what it still needs."""
BEHIND = 5000
"""How many writes a member that lags has not applied."""


class MachineService(Observing):
    """The machine API of one node; the roles of a call have been checked before."""

    async def version(self, _request: Any, _roles: frozenset[str]) -> api.VersionResponse:
        """Return the version and platform."""
        image = self._node.image
        mode = "cloud" if image.platform == "nocloud" else image.platform
        version = api.Version(
            version=api.VersionInfo(tag=image.version, os="linux", arch="amd64"),
            platform=api.PlatformInfo(name=image.platform, mode=mode),
        )
        if not self._node.in_maintenance:
            version.features.rbac = True
        return api.VersionResponse(messages=[version])

    async def apply_configuration(self, request: Any, roles: frozenset[str]) -> api.ApplyConfigurationResponse:
        """Accept a configuration: from anybody in maintenance mode, from administrators afterwards."""
        node = self._node
        if node.nodes.faults.take("talos.apply-busy-once"):
            raise _precondition("another apply configuration is already in progress")
        if node.rebooting:
            raise _precondition(
                "configuration was already applied and node is rebooting, "
                "cannot apply more configuration changes until next reboot"
            )
        if not node.in_maintenance and ADMIN not in roles:
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        config, warnings = self._read(request.data)
        mode, details = self._mode(request.mode, config)
        if mode == _Mode.TRY and not request.dry_run:
            raise GRPCError(Status.UNIMPLEMENTED, "the lab does not implement the try mode")
        if request.dry_run:
            details = f"Dry run summary:\n{details} (skipped in dry-run).\n{difference(node.config, config)}"
        else:
            self._apply(mode, config)
            node.break_connections("talos.apply-lost-once")
        applied = api.ApplyConfiguration(mode=mode, mode_details=details, warnings=warnings)
        return api.ApplyConfigurationResponse(messages=[applied])

    async def bootstrap(self, request: Any, _roles: frozenset[str]) -> api.BootstrapResponse:
        """Start etcd, once in the life of a cluster; with an uploaded snapshot, as its content."""
        node = self._node
        if "cri" not in node.services:
            raise _precondition("bootstrap is not available yet")
        self._control_plane("bootstrap")
        if node.nodes.faults.on("talos.time-not-synced"):
            raise _precondition("time is not in sync yet")
        if node.disk.etcd is not None:
            raise GRPCError(Status.ALREADY_EXISTS, "etcd data directory is not empty")
        if request.recover_etcd:
            self._recover(verify=not request.recover_skip_hash_check)
        else:
            node.bootstrap()
        node.break_connections("talos.bootstrap-lost-once")
        return api.BootstrapResponse(messages=[api.Bootstrap()])

    async def kubeconfig(self, _request: Any, _roles: frozenset[str]) -> AsyncIterator[Data]:
        """Return a new administrator's kubeconfig."""
        yield Data(bytes=_admin_kubeconfig(self._control_plane("kubeconfig")))

    async def containers(self, request: Any, _roles: frozenset[str]) -> api.ContainersResponse:
        """Return the containers of the control plane; no stage reads those of other pods."""
        infos = [
            api.ContainerInfo(
                namespace=request.namespace, id=self._container(name), name=name, status="CONTAINER_RUNNING"
            )
            for name in self._node.nodes.cluster.logs(self._node)
            if name.startswith("kube-")
        ]
        return api.ContainersResponse(messages=[api.Container(containers=infos)])

    async def logs(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[Data]:
        """Return the log of a service, of Talos' controllers, or of a container."""
        logs = dict.fromkeys(("controller-runtime", *self._node.services), "")
        logs |= {self._container(name): text for name, text in self._node.nodes.cluster.logs(self._node).items()}
        if request.id not in logs:
            raise GRPCError(Status.UNKNOWN, f'log "{request.id}" was not registered')
        lines = logs[request.id].splitlines(keepends=True)
        yield Data(bytes="".join(lines[-request.tail_lines :] if request.tail_lines > 0 else lines).encode())

    def _container(self, name: str) -> str:
        """The id of a container; for other logs the name."""
        pod = f"kube-system/{name}-{self._node.hostname}"
        return f"{pod}:{name}:{hashlib.sha256(pod.encode()).hexdigest()[:12]}" if name.startswith("kube-") else name

    async def etcd_member_list(self, request: Any, _roles: frozenset[str]) -> api.EtcdMemberListResponse:
        """Return the members; an error until etcd runs, and without a quorum unless only this member is asked."""
        etcd = self._etcd("member list")
        if not etcd.has_quorum and not request.query_local:
            raise GRPCError(Status.UNAVAILABLE, "etcdserver: request timed out")
        newest = self._newest("talos.etcd-learner")
        members = [
            api.EtcdMember(
                id=m.id, hostname=m.hostname, peer_urls=[m.peer_url], client_urls=[m.client_url], is_learner=m is newest
            )
            for m in etcd.members.values()
        ]
        names = [member.hostname for member in members]
        return api.EtcdMemberListResponse(messages=[api.EtcdMembers(members=members, legacy_members=names)])

    async def etcd_status(self, _request: Any, _roles: frozenset[str]) -> api.EtcdStatusResponse:
        """Return the status of this member."""
        etcd = self._etcd("etcd status")
        own, leader = etcd.members[self._node.vm.uuid], etcd.members.get(etcd.elected())
        alarms = [alarm for alarm in self._alarms() if alarm.member_id == own.id]
        index = int((self._node.nodes.clock.now() - etcd.since) * WRITES)
        status = api.EtcdMemberStatus(
            member_id=own.id,
            leader=leader.id if leader else 0,
            protocol_version=etcd_version(self._node.image.version),
            storage_version=f"{etcd.storage}.0",
            db_size=IN_USE if self._node.vm.uuid in etcd.defragmented else ALLOCATED,
            db_size_in_use=IN_USE,
            raft_term=etcd.term,
            raft_index=index,
            raft_applied_index=max(0, index - BEHIND) if own is self._newest("talos.etcd-behind") else index,
            errors=[
                f"memberID:{alarm.member_id} alarm:{api.EtcdMemberAlarm.AlarmType.Name(alarm.alarm)} "
                for alarm in alarms
            ],
            is_learner=own is self._newest("talos.etcd-learner"),
        )
        return api.EtcdStatusResponse(messages=[api.EtcdStatus(member_status=status)])

    async def etcd_alarm_list(self, _request: Any, _roles: frozenset[str]) -> api.EtcdAlarmListResponse:
        """Return the alarms of all members."""
        self._etcd("etcd alarm list")
        return api.EtcdAlarmListResponse(messages=[api.EtcdAlarm(member_alarms=self._alarms())])

    async def etcd_alarm_disarm(self, _request: Any, _roles: frozenset[str]) -> api.EtcdAlarmDisarmResponse:
        """End all alarms. They are raised again at once while a database is still full."""
        etcd, alarms = self._etcd("etcd alarm list"), self._alarms()
        etcd.disarmed = etcd.defragmented >= etcd.members.keys()
        return api.EtcdAlarmDisarmResponse(messages=[api.EtcdAlarmDisarm(member_alarms=alarms)])

    async def etcd_defragment(self, _request: Any, _roles: frozenset[str]) -> api.EtcdDefragmentResponse:
        """Give the space that this member's database does not use back to the disk."""
        self._etcd("etcd defragment").defragmented.add(self._node.vm.uuid)
        return api.EtcdDefragmentResponse(messages=[api.EtcdDefragment()])

    async def etcd_forfeit_leadership(self, _request: Any, _roles: frozenset[str]) -> api.EtcdForfeitLeadershipResponse:
        """Let another member lead, if this one does."""
        etcd, uuid, member = self._etcd("etcd forfeit leadership"), self._node.vm.uuid, ""
        if etcd.elected() == uuid:
            other = etcd.forfeit()
            if not other:
                raise GRPCError(Status.UNKNOWN, "cannot forfeit leadership, only one member")
            member = etcd.members[other].hostname
        return api.EtcdForfeitLeadershipResponse(messages=[api.EtcdForfeitLeadership(member=member)])

    def _newest(self, fault: str) -> EtcdMember | None:
        """The member that joined last, if that fault is injected and there are others."""
        members = list(self._etcd("etcd").members.values())
        return members[-1] if self._node.nodes.faults.on(fault) and len(members) > 1 else None

    def _alarms(self) -> list[api.EtcdMemberAlarm]:
        etcd = self._etcd("etcd")
        if etcd.disarmed or not self._node.nodes.faults.on("talos.etcd-no-space"):
            return []
        kind = api.EtcdMemberAlarm.AlarmType.NOSPACE
        return [api.EtcdMemberAlarm(member_id=member.id, alarm=kind) for member in etcd.members.values()]

    async def etcd_remove_member_by_id(self, request: Any, _roles: frozenset[str]) -> api.EtcdRemoveMemberByIDResponse:
        """Remove any member, if the others have a quorum without it."""
        etcd = self._etcd("etcd remove member")
        uuid = next((uuid for uuid, member in etcd.members.items() if member.id == request.member_id), None)
        if uuid is None:
            raise GRPCError(Status.NOT_FOUND, "etcdserver: member not found")
        _require_others(etcd, uuid)
        etcd.leave(uuid)
        return api.EtcdRemoveMemberByIDResponse(messages=[api.EtcdRemoveMemberByID()])

    async def etcd_leave_cluster(self, _request: Any, _roles: frozenset[str]) -> api.EtcdLeaveClusterResponse:
        """Remove this member, if the others have a quorum without it."""
        _require_others(self._etcd("etcd leave"), self._node.vm.uuid)
        self._node.leave_etcd()
        return api.EtcdLeaveClusterResponse(messages=[api.EtcdLeaveCluster()])

    async def etcd_snapshot(self, _request: Any, _roles: frozenset[str]) -> AsyncIterator[Data]:
        """Return a snapshot of this member's database."""
        self._etcd("etcd snapshot")
        data = await self._node.nodes.cluster.snapshot(self._node)
        if self._node.nodes.faults.take("talos.snapshot-damaged-once"):
            data = bytes([*data[:-100], data[-100] ^ 1, *data[-99:]])
        for start in range(0, len(data), CHUNK):
            yield Data(bytes=data[start : start + CHUNK])

    async def etcd_recover(self, stream: Any, _roles: frozenset[str]) -> api.EtcdRecoverResponse:
        """Take a snapshot for a later Bootstrap; nothing about it is checked yet."""
        self._control_plane("etcd recover")
        if "cri" not in self._node.services:
            raise _precondition("etcd service is not ready for recovery yet")
        data = b"".join([part.bytes async for part in stream])
        self._node.disk.snapshot = data
        return api.EtcdRecoverResponse(messages=[api.EtcdRecover()])

    def _recover(self, *, verify: bool) -> None:
        """Begin with the uploaded snapshot. As in Talos, only etcd's service tells if that fails."""
        node, problem = self._node, ""
        try:
            if not node.disk.snapshot:
                problem = "error opening snapshot file: open /var/lib/etcd.snapshot: no such file or directory"
            elif verify:
                snapshot.read(node.disk.snapshot)
        except snapshot.DamagedError as error:
            problem = f"error verifying snapshot: {error}"
        if problem:
            node.set_service("etcd", ServiceState("Failed", message=f"Failed to run pre stage: {problem}"))
            return
        node.bootstrap(node.disk.snapshot)
        node.disk.snapshot = b""

    async def reboot(self, _request: Any, _roles: frozenset[str]) -> api.RebootResponse:
        """Restart."""
        self._node.restart("reboot", "rebooting")
        return api.RebootResponse(messages=[api.Reboot(actor_id=self._actor())])

    async def shutdown(self, _request: Any, _roles: frozenset[str]) -> api.ShutdownResponse:
        """Power off."""
        self._node.restart("poweroff", "shutting down")
        return api.ShutdownResponse(messages=[api.Shutdown(actor_id=self._actor())])

    async def reset(self, request: Any, _roles: frozenset[str]) -> api.ResetResponse:
        """Wipe the system disk or some partitions, and restart."""
        node = self._node
        mode, labels = request.mode, [spec.label for spec in request.system_partitions_to_wipe if spec.wipe]
        self._require_targets(request, labels)
        if request.graceful and node.config and node.config.is_control_plane:
            _require_others(self._etcd("etcd leave"), node.vm.uuid)
            node.leave_etcd()
        if mode != _Wipe.USER_DISKS:
            node.wipe(labels)
        if request.user_disks_to_wipe:
            node.wipe_data()
        node.restart("reboot" if request.reboot else "poweroff", "resetting")
        return api.ResetResponse(messages=[api.Reset(actor_id=self._actor())])

    def _require_targets(self, request: Any, labels: list[str]) -> None:
        """Refuse, in Talos' words, what cannot be wiped."""
        disks = {disk.path: disk for disk in self._node.disks}
        problem = ""
        if request.mode == _Wipe.SYSTEM_DISK and request.user_disks_to_wipe:
            problem = "wipe mode SYSTEM_DISK doesn't support UserDisksToWipe parameter"
        elif request.mode == _Wipe.USER_DISKS and labels:
            problem = "wipe mode USER_DISKS doesn't support SystemPartitionsToWipe parameter"
        elif unknown := sorted(set(labels) - {"META", "STATE", "EPHEMERAL"}):
            problem = f'failed to get volume status with label "{unknown[0]}": not found'
        for path in request.user_disks_to_wipe:
            if path not in disks:
                problem = problem or f"device {path} wasn't found"
            elif disks[path].drive == self._node.disk.drive:
                problem = problem or f"device {path} is the system disk"
        if problem:
            raise GRPCError(Status.UNKNOWN, problem)

    async def upgrade(self, request: Any, _roles: frozenset[str]) -> api.UpgradeResponse:
        """Install another image and boot it."""
        node = self._node
        if not node.disk.image:
            raise _precondition("Talos is not installed")
        if not (request.force or request.preserve) and node.config and node.config.is_control_plane:
            self._require_healthy_members()
        if not node.nodes.has_image(request.image):
            raise GRPCError(Status.UNKNOWN, f"error validating installer image {request.image!r}: not found")
        node.disk.previous, node.disk.image, node.disk.on_trial = node.disk.image, request.image, True
        node.restart("reboot", "upgrading")
        return api.UpgradeResponse(messages=[api.Upgrade(ack="Upgrade request received", actor_id=self._actor())])

    async def rollback(self, _request: Any, _roles: frozenset[str]) -> api.RollbackResponse:
        """Boot the image before the last upgrade; nothing is checked."""
        disk = self._node.disk
        if not disk.previous:
            raise GRPCError(Status.UNKNOWN, 'cannot rollback to "B", label does not exist')
        disk.image, disk.previous, disk.on_trial = disk.previous, disk.image, False
        self._node.restart("reboot", "rebooting")
        return api.RollbackResponse(messages=[api.Rollback()])

    def _require_healthy_members(self) -> None:
        """Refuse an upgrade that would cost etcd its quorum, in Talos' words."""
        etcd, prefix = self._etcd("upgrade"), "error validating etcd for upgrade: "
        if len(etcd.members) == 2:  # noqa: PLR2004
            reason = "etcd member count(2) is insufficient to maintain quorum if upgrade commences"
            raise GRPCError(Status.UNKNOWN, prefix + reason)
        for uuid, member in etcd.members.items():
            if uuid not in etcd.up:
                reason = "is not healthy; all members must be healthy to perform an upgrade: context deadline exceeded"
                raise GRPCError(Status.UNKNOWN, f"{prefix}etcd member {member.id:016x} {reason}")

    def _read(self, data: bytes) -> tuple[MachineConfiguration, list[str]]:
        try:
            talos = self._node.image.version
            config = load(data, talos)
            if not self._node.in_maintenance and not config.main:
                raise InvalidConfigurationError(  # noqa: TRY301
                    "the applied machine configuration doesn't contain v1alpha1 config, "
                    "did you mean to patch the machine config instead?"
                )
            warnings = validate(config, talos)
            if (referee := self._node.nodes.referee) and talos.startswith(JUDGED):
                ask(referee, data)
        except InvalidConfigurationError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        return config, warnings

    def _mode(self, requested: Any, config: MachineConfiguration) -> tuple[Any, str]:
        """The effective mode of a change, and Talos' text for it."""
        current = self._node.config
        mode = requested
        if current is None and requested == _Mode.REBOOT:
            mode = _Mode.NO_REBOOT
        if requested == _Mode.AUTO:
            mode = _Mode.REBOOT if current and needs_reboot(current, config) else _Mode.NO_REBOOT
        if mode in {_Mode.NO_REBOOT, _Mode.TRY} and current and needs_reboot(current, config):
            raise GRPCError(Status.INVALID_ARGUMENT, "this config change can't be applied in immediate mode")
        texts = {
            _Mode.REBOOT: "Applied configuration with a reboot",
            _Mode.STAGED: "Staged configuration to be applied after the next reboot",
        }
        return mode, texts.get(mode, "Applied configuration without a reboot")

    def _apply(self, mode: Any, config: MachineConfiguration) -> None:
        if mode in {_Mode.REBOOT, _Mode.STAGED}:
            self._node.disk.config = config.canonical
        else:
            self._node.apply(config)
        if mode == _Mode.REBOOT:
            self._node.restart("reboot", "rebooting")

    def _control_plane(self, call: str) -> MachineConfiguration:
        config = self._node.config
        if config is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"machine type is not set, cannot use {call} API")
        if not config.is_control_plane:
            raise GRPCError(Status.UNIMPLEMENTED, f"{call} is only available on control plane nodes")
        return config

    def _etcd(self, call: str) -> Etcd:
        self._control_plane(call)
        if not self._node.etcd_is_up or self._node.disk.etcd is None:
            dial = f"dial tcp {self._node.address}:2379: connect: connection refused"
            raise GRPCError(Status.UNAVAILABLE, f'connection error: desc = "transport: Error while dialing: {dial}"')
        return self._node.disk.etcd

    def _actor(self) -> str:
        return str(UUID(int=self._node.nodes.random.getrandbits(128), version=4))


def _require_others(etcd: Etcd, uuid: str) -> None:
    """Refuse, in etcd's words, the removal of a member without a quorum before or after it."""
    if not etcd.has_quorum:
        raise GRPCError(Status.UNAVAILABLE, "etcdserver: request timed out")
    if not etcd.may_leave(uuid):
        text = "etcdserver: re-configuration failed due to not enough started members"
        raise GRPCError(Status.FAILED_PRECONDITION, text)


def _precondition(text: str) -> GRPCError:
    return GRPCError(Status.FAILED_PRECONDITION, text)


def _admin_kubeconfig(config: MachineConfiguration) -> bytes:
    """A `.tar.gz` with one file `kubeconfig`, as the Kubeconfig RPC sends it."""
    text = yaml.safe_dump(_kubeconfig(config), sort_keys=False).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        entry = tarfile.TarInfo("kubeconfig")
        entry.size, entry.mode = len(text), 0o600
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _kubeconfig(config: MachineConfiguration) -> dict[str, object]:
    authority, name = pair(config.cluster.get("ca")), config.cluster_name
    admin = issue(authority, common_name="admin", organizations=["system:masters"], client=True, key_encipherment=True)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": config.endpoint, "certificate-authority-data": _base64(authority.crt)}}
        ],
        "users": [
            {
                "name": f"admin@{name}",
                "user": {
                    "client-certificate-data": _base64(admin.crt),
                    "client-key-data": _base64(openssl_key(admin.key)),
                },
            }
        ],
        "contexts": [
            {"name": f"admin@{name}", "context": {"cluster": name, "namespace": "default", "user": f"admin@{name}"}}
        ],
        "current-context": f"admin@{name}",
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
