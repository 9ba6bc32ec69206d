"""cosi.resource.State: Get, List and Watch over a node's resources, in YAML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.wire.generated.cosi_pb2 import (
    Event,
    EventType,
    GetResponse,
    ListResponse,
    Metadata,
    Resource,
    Spec,
    WatchResponse,
)
from fluobook_lab.talos.known_types import NAMESPACES, SENSITIVE, TYPES
from fluobook_lab.talos.roles import ADMIN
from fluobook_lab.talos.state import Key, Stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fluobook_lab.talos.machine import TalosMachine
    from fluobook_lab.talos.state import Change

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class StateService:
    """Reads for everybody, but for sensitive types; no writes."""

    def __init__(self, node: TalosMachine) -> None:
        self._node = node

    async def get(self, request: Any, roles: frozenset[str]) -> GetResponse:
        """One resource."""
        self._node.lose("talos.read-lost-once")
        _admit(request, roles)
        key = Key(request.namespace, request.type, request.id)
        found = self._node.state.get(key)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"resource {_display(key)} doesn't exist")
        return GetResponse(resource=_message(found))

    async def list(self, request: Any, roles: frozenset[str]) -> AsyncIterator[ListResponse]:
        """The resources of a type."""
        _admit(request, roles)
        pattern = re.compile(request.options.id_query.regexp)
        for item in self._node.state.list(request.namespace, request.type):
            if pattern.search(item.key.id):
                yield ListResponse(resource=_message(item))

    async def watch(self, request: Any, roles: frozenset[str]) -> AsyncIterator[WatchResponse]:
        """What there is (for one id always, for a type if asked), then every change."""
        _admit(request, roles)
        queue = self._node.state.watch()
        try:
            if request.api_version >= 1:
                yield WatchResponse()  # clients wait for this: the watch stands
            for event in self._first(request):
                yield WatchResponse(event=[event])
            while True:
                change = await queue.get()
                if _concerns(request, change.resource.key):
                    yield WatchResponse(event=[_event(change)])
        finally:
            self._node.state.unwatch(queue)

    def _first(self, request: Any) -> Sequence[Event]:
        if request.HasField("id"):
            key = Key(request.namespace, request.type, request.id)
            found = self._node.state.get(key)
            if found is not None:
                return [Event(event_type=EventType.CREATED, resource=_message(found))]
            return [Event(event_type=EventType.DESTROYED, resource=Resource(metadata=_absent(key), spec=Spec()))]
        if not request.options.bootstrap_contents:
            return []
        items = self._node.state.list(request.namespace, request.type)
        events = [Event(event_type=EventType.CREATED, resource=_message(item)) for item in items]
        return [*events, Event(event_type=EventType.BOOTSTRAPPED)]


def _admit(request: Any, roles: frozenset[str]) -> None:
    """What Talos' access policy says, in its order: the type, its sensitivity, the namespace."""
    if request.type.lower() not in TYPES:
        raise GRPCError(Status.PERMISSION_DENIED, f'resource type "{request.type}" is not supported')
    if request.type.lower() in SENSITIVE and ADMIN not in roles:
        raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
    if request.namespace not in NAMESPACES:
        raise GRPCError(Status.PERMISSION_DENIED, f'namespace "{request.namespace}" is not supported')


def _concerns(request: Any, key: Key) -> bool:
    return key[:2] == (request.namespace, request.type) and request.id in {"", key.id}


def _event(change: Change) -> Event:
    event = Event(event_type=EventType.Value(change.type), resource=_message(change.resource))
    if change.old is not None:
        event.old.CopyFrom(_message(change.old))
    return event


def _message(item: Stored) -> Resource:
    text = yaml.dump(item.spec, Dumper=_Dumper, sort_keys=False)
    return Resource(metadata=_metadata(item), spec=Spec(yaml_spec=text))


def _metadata(item: Stored) -> Metadata:
    metadata = Metadata(
        namespace=item.key.namespace, type=item.key.type, id=item.key.id, version=str(item.version), phase="running"
    )
    metadata.created.FromNanoseconds(int(item.created * 1e9))
    metadata.updated.FromNanoseconds(int(item.updated * 1e9))
    return metadata


def _absent(key: Key) -> Metadata:
    return Metadata(namespace=key.namespace, type=key.type, id=key.id, version="undefined", phase="running")


def _display(key: Key) -> str:
    return f"{key.type}({key.namespace}/{key.id}@undefined)"
