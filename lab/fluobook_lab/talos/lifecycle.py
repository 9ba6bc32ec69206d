"""machine.ImageService and machine.LifecycleService of a node: images are pulled first, then installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.params.versions import minor_of, ordered
from fluobook.wire.generated import machine_pb2 as api
from fluobook_lab.talos.config import InvalidConfigurationError, load
from fluobook_lab.talos.node import parse_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook_lab.talos.node import TalosMachine

PULL_SECONDS, INSTALL_SECONDS = 8.0, 15.0
"""Simulated seconds."""
OLDEST, NEWEST = 2, 1
"""How many minors older, or newer, than an image a running Talos may be that installs it."""


class ImageService:
    """Pulls images into the node's containerd, where they stay until EPHEMERAL is wiped."""

    def __init__(self, node: TalosMachine) -> None:
        self._node = node

    async def pull(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[api.ImageServicePullResponse]:
        """Pull an image; the registry must have it."""
        node, name = self._node, request.image_ref
        if not node.nodes.has_image(name):
            raise GRPCError(Status.UNKNOWN, f'failed to pull image "{name}": {name}: not found')
        await node.nodes.clock.sleep(PULL_SECONDS)
        node.disk.images.add(name)
        yield api.ImageServicePullResponse(name=name)

    async def list(self, _request: Any, _roles: frozenset[str]) -> AsyncIterator[api.ImageServiceListResponse]:
        """The images that were pulled."""
        for name in sorted(self._node.disk.images):
            yield api.ImageServiceListResponse(name=name)


class LifecycleService:
    """Installs another image beside the running one. Checks nothing about etcd, drains nothing, restarts nothing."""

    def __init__(self, node: TalosMachine) -> None:
        self._node, self._busy = node, False

    async def upgrade(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[api.LifecycleServiceUpgradeResponse]:
        """Install an image that was pulled: the installer's lines, then its exit code."""
        node, name = self._node, request.source.image_name
        if not name:
            raise GRPCError(Status.INVALID_ARGUMENT, "installer image name is required")
        if not node.disk.image:
            raise GRPCError(Status.FAILED_PRECONDITION, "machine is not installed")
        if self._busy:
            raise GRPCError(Status.FAILED_PRECONDITION, "another installation/upgrade is already in progress")
        if name not in node.disk.images:
            raise GRPCError(Status.NOT_FOUND, f'installer image "{name}" not found in containerd store')
        self._busy = True
        try:
            yield _line("running pre-flight checks")
            yield _line(f"host Talos version: {node.image.version}")
            if problem := self._problem(name):
                yield _line(problem)
                yield _exit(1)
                return
            yield _line("all pre-flight checks successful")
            await node.nodes.clock.sleep(INSTALL_SECONDS)
            if node.nodes.faults.take("talos.upgrade-fails-once"):
                yield _line("failed to install bootloader: no space left on device")
                yield _exit(1)
                return
            node.disk.previous, node.disk.image = node.booted or node.disk.image, name
            node.disk.on_trial = True
            yield _line("installation of the new version complete")
            yield _exit(0)
        finally:
            self._busy = False

    def _problem(self, name: str) -> str:
        """What the installer's own checks refuse: too large a step, or a configuration that it cannot read."""
        host, target = self._node.image.version, parse_image(name).version
        step = ordered(minor_of(target))[1] - ordered(minor_of(host))[1]
        if step > OLDEST:
            return f"host version {host} is too old to upgrade to Talos {target}"
        if step < -NEWEST:
            return f"host version {host} is too new to downgrade to Talos {target}"
        try:
            load(self._node.disk.config, target)
        except InvalidConfigurationError as error:
            return f"error loading machine config: {error}"
        return ""


def _line(text: str) -> api.LifecycleServiceUpgradeResponse:
    return api.LifecycleServiceUpgradeResponse(progress=api.LifecycleServiceInstallProgress(message=text))


def _exit(code: int) -> api.LifecycleServiceUpgradeResponse:
    return api.LifecycleServiceUpgradeResponse(progress=api.LifecycleServiceInstallProgress(exit_code=code))
