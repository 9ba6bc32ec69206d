"""What Talos' API returns: resources (COSI) with their spec as parsed YAML, and the values of its other calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluobook.clients import answers
from fluobook.wire.generated.cosi_pb2 import EventType

READ = 15.0
"""Seconds that one read may take."""


@dataclass(frozen=True)
class Kind:
    """A type of resource, its namespace, and the id where there is only one."""

    type: str
    namespace: str = "runtime"
    id: str = ""


MACHINE_STATUS = Kind("MachineStatuses.runtime.talos.dev", id="machine")
MACHINE_CONFIG = Kind("MachineConfigs.config.talos.dev", "config", "v1alpha1")
MANIFESTS = Kind("Manifests.kubernetes.talos.dev", "controlplane")
SYSTEM_INFORMATION = Kind("SystemInformations.hardware.talos.dev", "hardware", "systeminformation")
LINKS = Kind("LinkStatuses.net.talos.dev", "network")
ADDRESSES = Kind("NodeAddresses.net.talos.dev", "network", "default")
HOSTNAME = Kind("HostnameStatuses.net.talos.dev", "network", "hostname")
TIME = Kind("TimeStatuses.v1alpha1.talos.dev", id="node")
PLATFORM = Kind("PlatformMetadatas.talos.dev", id="platformmetadata")
EXTENSIONS = Kind("ExtensionStatuses.runtime.talos.dev")
DISKS = Kind("Disks.block.talos.dev")
SYSTEM_DISK = Kind("SystemDisks.block.talos.dev", id="system-disk")
VOLUMES = Kind("VolumeStatuses.block.talos.dev")
MEMBERS = Kind("Members.cluster.talos.dev", "cluster")
ETCD_MEMBER = Kind("EtcdMembers.etcd.talos.dev", "etcd", "local")
NODENAME = Kind("Nodenames.kubernetes.talos.dev", "k8s", "nodename")
SERVICES = Kind("Services.v1alpha1.talos.dev")


@dataclass(frozen=True)
class Resource:
    """One resource; `spec` is its YAML, parsed."""

    namespace: str
    type: str
    id: str
    version: str
    phase: str
    spec: Any


@dataclass(frozen=True)
class Event:
    """A change: "created", "updated", "destroyed"; "bootstrapped" after the existing resources."""

    type: str
    resource: Resource | None


def read_event(event: Any) -> Event:
    """From COSI's event."""
    resource = read_resource(event.resource) if event.HasField("resource") else None
    return Event(EventType.Name(event.event_type).lower(), resource)


def read_resource(message: Any) -> Resource:
    """From COSI's resource.

    Raises:
        ValueError: its spec is not YAML.
    """
    metadata = message.metadata
    spec = answers.parse_yaml(message.spec.yaml_spec.encode() or b"{}")
    return Resource(metadata.namespace, metadata.type, metadata.id, metadata.version, metadata.phase, spec)


NO_CHANGES = "No changes."


@dataclass(frozen=True)
class Applied:
    """How a configuration was (or, in a dry run, would be) applied: "NO_REBOOT", "REBOOT", etc.

    `details` of a dry run contain the difference with its secrets; never show them.
    """

    mode: str
    details: str = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def unchanged(self) -> bool:
        """Whether a dry run found no difference."""
        return self.details.rstrip().endswith(NO_CHANGES)


@dataclass(frozen=True)
class Version:
    """A node's Talos version ("v1.13.9"), architecture, platform ("nocloud") and mode ("cloud")."""

    tag: str
    arch: str
    platform: str
    mode: str


@dataclass(frozen=True)
class Service:
    """A system service: its state ("Running") and health (None while it is unknown)."""

    id: str
    state: str
    healthy: bool | None
    message: str


@dataclass(frozen=True)
class EtcdMember:
    """A member of etcd; `id` is in hexadecimal, as etcd's own tools write it."""

    id: str
    hostname: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True)
class EtcdStatus:
    """What a member of etcd reports of itself: ids in hexadecimal, sizes in bytes, `leader` "" if it knows none.

    `storage` is the version of its data, "" if it does not tell. `alarms` are those of the whole cluster as this member
    sees them: the id of a member, and the alarm ("NOSPACE").
    """

    id: str
    leader: str
    term: int
    index: int
    applied: int
    learner: bool
    errors: tuple[str, ...]
    alarms: tuple[tuple[str, str], ...]
    size: int
    used: int
    version: str
    storage: str = ""


@dataclass(frozen=True)
class MachineStage:
    """How far a node has come ("maintenance", "booting", "running"…), and the conditions that are not met."""

    stage: str
    ready: bool
    unmet: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Snapshot:
    """An etcd snapshot that was written: where, its size in bytes and its SHA-256."""

    path: Path
    size: int
    sha256: str
