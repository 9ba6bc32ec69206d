"""The smaller services of a node: disks, images, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.wire.generated import machine_pb2, storage_pb2, time_pb2
from fluobook_lab.talos.disk import GIB
from fluobook_lab.talos.roles import ADMIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook_lab.talos.machine import TalosMachine


class StorageService:
    """storage.StorageService."""

    def __init__(self, node: TalosMachine) -> None:
        self._node = node

    async def disks(self, _request: Any, _roles: frozenset[str]) -> storage_pb2.DisksResponse:
        """All disks."""
        disks = [
            storage_pb2.Disk(
                device_name=f"/dev/{name}",
                size=gib * GIB,
                model="QEMU HARDDISK",
                type=storage_pb2.Disk.DiskType.SSD,
                system_disk=self._node.disk.device == f"/dev/{name}",
            )
            for name, gib in self._node.devices.items()
        ]
        return storage_pb2.DisksResponse(messages=[storage_pb2.Disks(disks=disks)])

    async def block_device_wipe(self, request: Any, roles: frozenset[str]) -> storage_pb2.BlockDeviceWipeResponse:
        """Wipe disks that are not in use; anybody may in maintenance mode."""
        if not self._node.in_maintenance and ADMIN not in roles:
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        for entry in request.devices:
            if entry.device not in self._node.devices:
                raise GRPCError(Status.NOT_FOUND, f'blockdevice "{entry.device}" not found')
            if self._node.disk.device == f"/dev/{entry.device}":
                raise GRPCError(
                    Status.FAILED_PRECONDITION, f'blockdevice "{entry.device}" is in use by volume "EPHEMERAL"'
                )
        return storage_pb2.BlockDeviceWipeResponse(messages=[storage_pb2.BlockDeviceWipe()])


class TimeService:
    """time.TimeService."""

    async def time(self, _request: Any, _roles: frozenset[str]) -> time_pb2.TimeResponse:
        """The node's clock against its time server's."""
        entry = time_pb2.Time(server="time.cloudflare.com")
        entry.localtime.GetCurrentTime()
        entry.remotetime.CopyFrom(entry.localtime)
        return time_pb2.TimeResponse(messages=[entry])


class ImageService:
    """machine.ImageService: every image can be pulled."""

    async def pull(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[machine_pb2.ImageServicePullResponse]:
        """Pull an image, at once."""
        yield machine_pb2.ImageServicePullResponse(name=request.image_ref)
