"""All gRPC services of a node, and who may call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.wire.generated import cluster_pb2, cosi_pb2, machine_pb2, storage_pb2, time_pb2
from fluobook_lab.grpc import Incoming, Service
from fluobook_lab.talos.machine_service import MachineService
from fluobook_lab.talos.other_services import ImageService, StorageService, TimeService
from fluobook_lab.talos.roles import READER, allowed, changes, roles_of
from fluobook_lab.talos.state_service import StateService

if TYPE_CHECKING:
    from fluobook_lab.talos.machine import TalosMachine


def services(node: TalosMachine) -> list[Service]:
    """The services of one node, as its API serves them in both modes."""

    def authorise(incoming: Incoming) -> frozenset[str]:
        roles = frozenset({READER}) if node.in_maintenance else roles_of(incoming.certificate)
        if not roles & allowed(incoming.path):
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        _refuse_others(node, incoming)
        return roles

    def seen(path: str, request: Any) -> None:
        node.world.asked(node, path, mutating=changes(path) and not getattr(request, "dry_run", False))

    implementations: list[tuple[Any, str, object]] = [
        (machine_pb2, "MachineService", MachineService(node)),
        (machine_pb2, "ImageService", ImageService()),
        (machine_pb2, "LifecycleService", object()),
        (cluster_pb2, "ClusterService", object()),
        (cosi_pb2, "State", StateService(node)),
        (storage_pb2, "StorageService", StorageService(node)),
        (time_pb2, "TimeService", TimeService()),
    ]
    return [
        Service(module.DESCRIPTOR.services_by_name[name], implementation, authorise, seen=seen)
        for module, name, implementation in implementations
    ]


def _refuse_others(node: TalosMachine, incoming: Incoming) -> None:
    """A real API passes calls on to the nodes that metadata names; here that is refused, never answered by another."""
    targets = {target for key in ("node", "nodes") for target in incoming.metadata.getall(key, [])}
    if others := sorted(targets - {node.address, node.hostname}):
        raise GRPCError(Status.UNIMPLEMENTED, f"the lab's nodes answer for themselves alone, not for {others[0]}")
