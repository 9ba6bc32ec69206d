"""The calls of machine.MachineService that show what a node does, and those that start and stop its services."""

from __future__ import annotations

import datetime as dt
import stat
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.wire.generated import machine_pb2 as api
from fluobook.wire.generated.common_pb2 import Data
from fluobook_lab.talos.node import RUNNING, ServiceState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook_lab.talos.node import TalosMachine
    from fluobook_lab.talos.resources import Stored

MACHINE_STATUS, SERVICES = "MachineStatuses.runtime.talos.dev", "Services.v1alpha1.talos.dev"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Observing:
    """A part of the machine API of one node; the roles of a call have been checked before."""

    def __init__(self, node: TalosMachine) -> None:
        self._node = node

    async def service_list(self, _request: Any, _roles: frozenset[str]) -> api.ServiceListResponse:
        """Return the system services by name."""
        services, etcd = dict(self._node.services), self._node.disk.etcd
        if self._node.etcd_is_up and etcd and not etcd.has_quorum:
            services["etcd"] = ServiceState("Running", healthy=False, message="context deadline exceeded")
        infos = [
            api.ServiceInfo(
                id=name,
                state=service.state,
                health=api.ServiceHealth(
                    unknown=service.healthy is None, healthy=bool(service.healthy), last_message=service.message
                ),
            )
            for name, service in sorted(services.items())
        ]
        return api.ServiceListResponse(messages=[api.ServiceList(services=infos)])

    async def read(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[Data]:
        """Return a file."""
        if (content := self._files().get(request.path)) is None:
            raise GRPCError(Status.NOT_FOUND, f"stat {request.path}: no such file or directory")
        yield Data(bytes=content)

    async def list(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[api.FileInfo]:
        """Return a folder and what is in it."""
        files, root = {PurePosixPath(path): len(data) for path, data in self._files().items()}, PurePosixPath("/")
        root /= request.root
        known = {*files, *(parent for path in files for parent in path.parents)}
        if root not in known:
            raise GRPCError(Status.UNKNOWN, f"lstat {root}: no such file or directory")
        depth = request.recursion_depth or (sys.maxsize if request.recurse else 1)
        for path in sorted(known):
            if path.is_relative_to(root) and len(path.relative_to(root).parts) <= depth:
                size, is_dir = files.get(path, 0), path not in files
                mode = stat.S_IFDIR | 0o755 if is_dir else stat.S_IFREG | 0o644
                relative = str(path.relative_to(root))
                yield api.FileInfo(name=str(path), relative_name=relative, size=size, mode=mode, is_dir=is_dir)

    def _files(self) -> dict[str, bytes]:
        """What the lab has of a node's files: what shows a restart, the version, the configuration."""
        version, config = self._node.image.version, self._node.disk.config
        release = f'NAME="Talos"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME="Talos ({version})"\n'
        files = {BOOT_ID: f"{self._node.boot_id}\n", "/etc/os-release": release}
        files |= {"/system/state/config.yaml": config} if config else {}
        return {path: text.encode() for path, text in files.items()}

    async def hostname(self, _request: Any, _roles: frozenset[str]) -> api.HostnameResponse:
        """Return the host name."""
        return api.HostnameResponse(messages=[api.Hostname(hostname=self._node.hostname)])

    async def dmesg(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[Data]:
        """Return what Talos wrote to the kernel's log: the states of its services now, and then each new one."""
        queue = self._node.state.watch()
        try:
            if not request.tail:
                yield _message(f"Talos {self._node.image.version}")
                for name, service in self._node.services.items():
                    yield _message(f"service[{name}]({service.state}): {service.message}")
            while request.follow:
                event = _event((await queue.get()).resource, self._node)
                if isinstance(event, api.ServiceStateEvent):
                    state = api.ServiceStateEvent.Action.Name(event.action).capitalize()
                    yield _message(f"service[{event.service}]({state}): {event.message}")
        finally:
            self._node.state.unwatch(queue)

    async def events(self, request: Any, _roles: frozenset[str]) -> AsyncIterator[api.Event]:
        """Return an empty event, as the sign that others follow, then changes of the machine's and services' states.

        Of the past the lab knows only how it ended: the present state, for those who ask for past events.
        """
        queue = self._node.state.watch()
        try:
            yield api.Event()
            past = (
                self._node.state.list("runtime", MACHINE_STATUS) if request.tail_events or request.tail_seconds else ()
            )
            for resource in past:
                yield self._numbered(_event(resource, self._node))
            while True:
                change = await queue.get()
                if change.type != "DESTROYED" and (event := _event(change.resource, self._node)):
                    yield self._numbered(event)
        finally:
            self._node.state.unwatch(queue)

    def _numbered(self, event: Any) -> api.Event:
        message = api.Event(id=f"{self._node.nodes.random.getrandbits(96):020x}"[-20:])
        message.data.Pack(event, type_url_prefix="talos/runtime/")
        return message

    async def service_restart(self, request: Any, _roles: frozenset[str]) -> api.ServiceRestartResponse:
        """Restart a service that may be."""
        self._control("restart", request.id, "kubelet", "ext-")
        running, starting = self._node.services[request.id], ServiceState("Starting", message="Starting service")
        self._node.set_service(request.id, starting)
        self._node.set_service(request.id, running if running.running else RUNNING)
        text = f'Service "{request.id}" restarted'
        return api.ServiceRestartResponse(messages=[api.ServiceRestart(resp=text)])

    async def service_start(self, request: Any, _roles: frozenset[str]) -> api.ServiceStartResponse:
        """Start a service that may be."""
        self._control("start", request.id, "kubelet", "ext-")
        if not self._node.services[request.id].running:
            self._node.set_service(request.id, RUNNING)
        return api.ServiceStartResponse(messages=[api.ServiceStart(resp=f'Service "{request.id}" started')])

    async def service_stop(self, request: Any, _roles: frozenset[str]) -> api.ServiceStopResponse:
        """Stop a service that may be: only those of extensions."""
        self._control("stop", request.id, "ext-")
        self._node.set_service(request.id, ServiceState("Finished", message="Service finished successfully"))
        return api.ServiceStopResponse(messages=[api.ServiceStop(resp=f'Service "{request.id}" stopped')])

    def _control(self, operation: str, name: str, *allowed: str) -> None:
        if name not in self._node.services:
            raise GRPCError(Status.UNKNOWN, f'service "{name}" not defined')
        if not name.startswith(allowed):
            raise GRPCError(Status.UNKNOWN, f'service "{name}" doesn\'t support {operation} operation via API')


def _event(resource: Stored, node: TalosMachine) -> api.MachineStatusEvent | api.ServiceStateEvent | None:
    """The event for a new state; None if Talos has none for it."""
    if resource.key.type == MACHINE_STATUS:
        stage, status = resource.spec["stage"].upper().replace(" ", "_"), resource.spec["status"]
        event = api.MachineStatusEvent(stage=api.MachineStatusEvent.MachineStage.Value(stage))
        event.status.ready = status["ready"]
        for unmet in status["unmetConditions"]:
            event.status.unmet_conditions.add(**unmet)
        return event
    if resource.key.type == SERVICES and (service := node.services.get(resource.key.id)):
        action = api.ServiceStateEvent.Action.Value(service.state.upper())
        health = api.ServiceHealth(unknown=service.healthy is None, healthy=bool(service.healthy))
        return api.ServiceStateEvent(service=resource.key.id, action=action, message=service.message, health=health)
    return None


def _message(text: str) -> Data:
    """A line of the kernel's log, as Talos formats it."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Data(bytes=f"user: warning: [{now}]: [talos] {text}\n".encode())
