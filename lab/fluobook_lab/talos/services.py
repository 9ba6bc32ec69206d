"""The gRPC services of a node, the roles that may call each RPC, and the resources service (COSI)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.wire.generated import cluster_pb2, cosi_pb2, machine_pb2, storage_pb2, time_pb2
from fluobook.wire.generated.cosi_pb2 import Event, EventType, Metadata, Resource, Spec, WatchResponse
from fluobook_lab.data import dump, table
from fluobook_lab.grpc import Incoming, Service
from fluobook_lab.talos.lifecycle import ImageService, LifecycleService
from fluobook_lab.talos.machine_service import ADMIN, MachineService
from fluobook_lab.talos.node import Call
from fluobook_lab.talos.resources import Key, Stored, is_sensitive, types
from fluobook_lab.talos.specs import encoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fluobook_lab.talos.node import TalosMachine
    from fluobook_lab.talos.resources import Change

OPERATOR, READER = "os:operator", "os:reader"
_ROLES = table("talos/roles.yaml")
KNOWN: frozenset[str] = frozenset(_ROLES["known"])
ALLOWED: dict[str, frozenset[str]] = {
    f"/{service}/{rpc}": frozenset(entry["roles"])
    for entry in _ROLES["rpcs"]
    for service, rpcs in entry["services"].items()
    for rpc in rpcs.split()
}
"""The roles of each RPC, as in `machined` of Talos 1.13; all other RPCs are for administrators."""


def services(node: TalosMachine) -> list[Service]:
    """The services of one node, in maintenance mode and afterwards; RPCs without a method are Unimplemented."""

    def authorise(incoming: Incoming) -> frozenset[str]:
        if answer := node.nodes.faults.answer("talos", incoming.path.rpartition("/")[2]):
            raise GRPCError(Status[str(answer.status)], answer.reason)
        roles = frozenset({READER}) if node.in_maintenance else _roles_of(incoming.certificate)
        if not roles & _allowed(incoming.path):
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        targets = {target for key in ("node", "nodes") for target in incoming.metadata.getall(key, [])}
        if others := sorted(targets - {node.address, node.hostname}):
            # A real API forwards such calls.
            raise GRPCError(Status.UNIMPLEMENTED, f"the lab's nodes do not forward calls to other nodes ({others[0]})")
        return roles

    def log(path: str, request: Any) -> None:
        reads = _allowed(path) >= {READER, OPERATOR} or path.rpartition("/")[2] in _ROLES["secret"].split()
        mutating = not reads and not getattr(request, "dry_run", False)
        node.nodes.calls.append(Call(node.nodes.clock.now(), node.vm.name, path, mutating))

    implementations: list[tuple[Any, str, object]] = [
        (machine_pb2, "MachineService", MachineService(node)),
        (machine_pb2, "ImageService", ImageService(node)),
        (machine_pb2, "LifecycleService", LifecycleService(node)),
        (cluster_pb2, "ClusterService", object()),
        (cosi_pb2, "State", StateService(node)),
        (storage_pb2, "StorageService", object()),
        (time_pb2, "TimeService", object()),
    ]
    return [
        Service(module.DESCRIPTOR.services_by_name[name], implementation, authorise, log=log)
        for module, name, implementation in implementations
    ]


def _allowed(path: str) -> frozenset[str]:
    return ALLOWED.get(path, frozenset({ADMIN}))


def _roles_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The roles in a client certificate: those of its organizations that Talos knows."""
    subject = (certificate or {}).get("subject", ())
    return KNOWN & {value for part in subject for key, value in part if key == "organizationName"}


class StateService:
    """cosi.resource.State: Get, List and Watch of a node's resources, in YAML."""

    def __init__(self, node: TalosMachine) -> None:
        self._node = node

    async def get(self, request: Any, roles: frozenset[str]) -> cosi_pb2.GetResponse:
        """Return one resource."""
        self._node.break_connections("talos.read-lost-once")
        _check_access(request, roles)
        key = Key(request.namespace, request.type, request.id)
        stored = self._node.state.get(key)
        if stored is None:
            text = f"resource {key.type}({key.namespace}/{key.id}@undefined) doesn't exist"
            raise GRPCError(Status.NOT_FOUND, text)
        return cosi_pb2.GetResponse(resource=_message(stored))

    async def list(self, request: Any, roles: frozenset[str]) -> AsyncIterator[cosi_pb2.ListResponse]:
        """Stream the resources of a type."""
        _check_access(request, roles)
        pattern = re.compile(request.options.id_query.regexp)
        for item in self._node.state.list(request.namespace, request.type):
            if pattern.search(item.key.id):
                yield cosi_pb2.ListResponse(resource=_message(item))

    async def watch(self, request: Any, roles: frozenset[str]) -> AsyncIterator[WatchResponse]:
        """Stream the present state (of one id always, of a type on request), then every change."""
        _check_access(request, roles)
        queue = self._node.state.watch()
        try:
            if request.api_version >= 1:
                yield WatchResponse()  # clients wait for this sign that the watch is set up
            for event in self._first(request):
                yield WatchResponse(event=[event])
            while True:
                change = await queue.get()
                key = change.resource.key
                if key[:2] == (request.namespace, request.type) and request.id in {"", key.id}:
                    yield WatchResponse(event=[_event(change)])
        finally:
            self._node.state.unwatch(queue)

    def _first(self, request: Any) -> Sequence[Event]:
        if request.HasField("id"):
            key = Key(request.namespace, request.type, request.id)
            stored = self._node.state.get(key)
            if stored is not None:
                return [Event(event_type=EventType.CREATED, resource=_message(stored))]
            absent = Metadata(**key._asdict(), version="undefined", phase="running")
            return [Event(event_type=EventType.DESTROYED, resource=Resource(metadata=absent, spec=Spec()))]
        if not request.options.bootstrap_contents:
            return []
        items = self._node.state.list(request.namespace, request.type)
        events = [Event(event_type=EventType.CREATED, resource=_message(item)) for item in items]
        return [*events, Event(event_type=EventType.BOOTSTRAPPED)]


def _check_access(request: Any, roles: frozenset[str]) -> None:
    """Talos' access policy, in its order: the type, its sensitivity, the namespace."""
    if request.type not in types():
        raise GRPCError(Status.PERMISSION_DENIED, f'resource type "{request.type}" is not supported')
    if is_sensitive(request.type) and ADMIN not in roles:
        raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
    if request.namespace not in types().values():
        raise GRPCError(Status.PERMISSION_DENIED, f'namespace "{request.namespace}" is not supported')


def _event(change: Change) -> Event:
    event = Event(event_type=EventType.Value(change.type), resource=_message(change.resource))
    if change.old is not None:
        event.old.CopyFrom(_message(change.old))
    return event


def _message(item: Stored) -> Resource:
    metadata = Metadata(**item.key._asdict(), version=str(item.version), phase="running")
    metadata.created.FromNanoseconds(int(item.created * 1e9))
    metadata.updated.FromNanoseconds(int(item.updated * 1e9))
    spec = Spec(yaml_spec=dump(item.spec, sort_keys=False), proto_spec=encoded(item.key.type, item.spec))
    return Resource(metadata=metadata, spec=spec)
