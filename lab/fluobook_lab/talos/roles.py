"""Who may call what: Talos' own table of roles (v1.13, `machined`), and the roles that a certificate carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ADMIN, OPERATOR, READER = "os:admin", "os:operator", "os:reader"
ETCD_BACKUP, META_WRITER = "os:etcd:backup", "os:meta:writer"
ROLES = frozenset({ADMIN, OPERATOR, READER, ETCD_BACKUP, META_WRITER, "os:impersonator"})

_ALL = frozenset({ADMIN, OPERATOR, READER})
_OPERATOR = frozenset({ADMIN, OPERATOR})
_ETCD = frozenset({ADMIN, OPERATOR, READER, ETCD_BACKUP})
_ADMIN = frozenset({ADMIN})

_READ = """
    CPUInfo CPUFreqStats Containers DiskStats DiskUsage Dmesg Events Hostname ImageList List LoadAvg Logs LogsContainers
    Memory Mounts NetworkDeviceStats Netstat Processes ServiceList Stats SystemStat Version
"""
_OPERATE = """
    EtcdAlarmDisarm EtcdDefragment ImagePull PacketCapture Reboot Restart ServiceRestart ServiceStart ServiceStop
    Shutdown
"""

ALLOWED: dict[str, frozenset[str]] = {
    **{f"/machine.MachineService/{name}": _ALL for name in _READ.split()},
    **{f"/machine.MachineService/{name}": _OPERATOR for name in _OPERATE.split()},
    **{f"/machine.MachineService/{name}": _ETCD for name in ("EtcdAlarmList", "EtcdMemberList", "EtcdStatus")},
    "/machine.MachineService/EtcdSnapshot": frozenset({ADMIN, OPERATOR, ETCD_BACKUP}),
    # A reader only in maintenance mode; the handler looks at that.
    "/machine.MachineService/ApplyConfiguration": frozenset({ADMIN, READER}),
    "/storage.StorageService/BlockDeviceWipe": frozenset({ADMIN, READER}),
    "/storage.StorageService/Disks": _ALL,
    "/cluster.ClusterService/HealthCheck": _ALL,
    "/machine.ImageService/List": _ALL,
    "/machine.ImageService/Pull": _OPERATOR,
    "/machine.ImageService/Verify": _ALL,
    "/time.TimeService/Time": _ALL,
    "/time.TimeService/TimeCheck": _ALL,
    "/cosi.resource.State/Get": _ALL,
    "/cosi.resource.State/List": _ALL,
    "/cosi.resource.State/Watch": _ALL,
}
"""The roles for each RPC; what is not named here is the administrator's alone."""


def allowed(path: str) -> frozenset[str]:
    """The roles that may call an RPC."""
    return ALLOWED.get(path, _ADMIN)


_ONLY_READ = {"Copy", "EtcdSnapshot", "GenerateClientConfiguration", "Kubeconfig", "PacketCapture", "Read"}


def changes(path: str) -> bool:
    """Whether an RPC changes anything: not what all may read, nor what is guarded for its secrets alone."""
    return allowed(path) not in {_ALL, _ETCD} and path.rpartition("/")[2] not in _ONLY_READ


def roles_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The roles in a client certificate: its organizations, as far as Talos knows them."""
    subject = (certificate or {}).get("subject", ())
    names = {value for part in subject for key, value in part if key == "organizationName"}
    return ROLES & names
