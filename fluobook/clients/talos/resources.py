"""Talos' resources (COSI), read through their YAML form, so that no type needs a message of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.wire.generated.cosi_grpc import StateStub
from fluobook.wire.generated.cosi_pb2 import (
    EventType,
    GetRequest,
    ListRequest,
    WatchOptions,
    WatchRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.clients.rpc import Connection

READ = 15.0
"""Seconds that one read may take."""

#: libyaml where it is: a dozen times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Kind:
    """A type of resource, its namespace, and the id where there is only one."""

    type: str
    namespace: str = "runtime"
    id: str = ""


MACHINE_STATUS = Kind("MachineStatuses.runtime.talos.dev", id="machine")
MACHINE_CONFIG = Kind("MachineConfigs.config.talos.dev", "config", "v1alpha1")
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
    """A change: "created", "updated", "destroyed"; "bootstrapped" once what was there before has been told."""

    type: str
    resource: Resource | None


class Resources:
    """Get, list and watch over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, kind: Kind, name: str = "") -> Resource:
        """One resource, by id; without one, the only one of its kind.

        Raises:
            NotFound: there is none yet.
            AccessDenied: the type is unknown to this Talos, or needs another role.
            Unreachable: no answer.
        """
        request = GetRequest(namespace=kind.namespace, type=kind.type, id=name or kind.id)
        return _resource(self._connection.call(StateStub, "Get", request, timeout=READ, again=True).resource)

    def list(self, kind: Kind) -> tuple[Resource, ...]:
        """All resources of a kind, in Talos' order (by id)."""
        request = ListRequest(namespace=kind.namespace, type=kind.type)
        replies = self._connection.stream(StateStub, "List", request, timeout=READ)
        return tuple(_resource(reply.resource) for reply in replies)

    def watch(self, kind: Kind, name: str = "", *, timeout: float | None = None) -> Iterator[Event]:
        """What there is, then every change, until closed or for `timeout` seconds.

        Raises:
            Unreachable: the connection ended; what was seen may be out of date.
        """
        wanted = name or kind.id
        request = WatchRequest(namespace=kind.namespace, type=kind.type, api_version=1)
        if wanted:
            request.id = wanted
        else:
            request.options.CopyFrom(WatchOptions(bootstrap_contents=True))
        for reply in self._connection.follow(StateStub, "Watch", request, timeout=timeout):
            for event in reply.event:
                yield _event(event)


def _event(event: Any) -> Event:
    resource = _resource(event.resource) if event.HasField("resource") else None
    return Event(EventType.Name(event.event_type).lower(), resource)


def _resource(message: Any) -> Resource:
    about = message.metadata
    spec = yaml.load(message.spec.yaml_spec, Loader=_Loader)  # noqa: S506 - a safe loader, in C
    return Resource(about.namespace, about.type, about.id, about.version, about.phase, spec)
