"""All gRPC services of a node, and who may call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.lab.grpc import Service
from fluobook.lab.talos.machine_service import MachineService
from fluobook.lab.talos.other_services import ImageService, StorageService, TimeService
from fluobook.lab.talos.roles import READER, allowed, changes, roles_of
from fluobook.lab.talos.state_service import StateService
from fluobook.wire.generated import cluster_pb2, cosi_pb2, machine_pb2, storage_pb2, time_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.lab.talos.machine import TalosMachine


def services(node: TalosMachine) -> list[Service]:
    """The services of one node, as its API serves them in both modes."""

    def authorise(path: str, certificate: Mapping[str, Any] | None) -> frozenset[str]:
        roles = frozenset({READER}) if node.in_maintenance else roles_of(certificate)
        if not roles & allowed(path):
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
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
