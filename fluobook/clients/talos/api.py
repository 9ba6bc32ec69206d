"""The calls that Talos answers in both modes: its version, its resources, and a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import stamina
from google.protobuf.empty_pb2 import Empty

from fluobook.clients.talos.identity import MachineIdentity
from fluobook.clients.talos.resources import LINKS, MACHINE_STATUS, READ, SYSTEM_INFORMATION, Resources
from fluobook.clients.talos.values import Applied, MachineStage, Version
from fluobook.errors import OutsideError
from fluobook.wire.generated.machine_grpc import MachineServiceStub
from fluobook.wire.generated.machine_pb2 import ApplyConfigurationRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.clients.rpc import Address, Connection
    from fluobook.clients.talos.resources import Event, Kind, Resource

CHANGE = 60.0
"""Seconds that one change may take to be accepted."""

_Mode = ApplyConfigurationRequest.Mode


class Node:
    """A Talos node over one connection; blocking, safe for any thread.

    `fingerprint` is that of its server key where it is all there is to know the server by (maintenance mode).
    """

    def __init__(self, connection: Connection, fingerprint: str = "") -> None:
        self.fingerprint = fingerprint
        self._connection = connection
        self._resources = Resources(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Address:
        """Where the node is."""
        return self._connection.address

    def close(self) -> None:
        """Close the connection; a later call opens it anew."""
        self._connection.close()

    def get(self, kind: Kind, name: str = "") -> Resource:
        """One resource; see `Resources.get`."""
        return self._resources.get(kind, name)

    def list(self, kind: Kind) -> tuple[Resource, ...]:
        """All resources of a kind."""
        return self._resources.list(kind)

    def watch(self, kind: Kind, name: str = "", *, timeout: float | None = None) -> Iterator[Event]:
        """A kind's resources, then every change; see `Resources.watch`."""
        return self._resources.watch(kind, name, timeout=timeout)

    def machine_stage(self) -> MachineStage:
        """How far the node has come, and what it waits for."""
        spec = self.get(MACHINE_STATUS).spec
        status = spec.get("status") or {}
        unmet = tuple((entry["name"], entry["reason"]) for entry in status.get("unmetConditions") or ())
        return MachineStage(spec["stage"], bool(status.get("ready")), unmet)

    def identity(self) -> MachineIdentity:
        """Which machine this is, by its SMBIOS uuid, its links and its key.

        Raises:
            Unreachable: no answer, or the node asks for other certificates.
            ForeignObject: another key than before (maintenance mode).
        """
        information = self.get(SYSTEM_INFORMATION).spec
        links = (link.spec.get("hardwareAddr") or "" for link in self.list(LINKS))
        macs = tuple(sorted(mac.lower() for mac in links if mac))
        return MachineIdentity(str(information.get("uuid") or ""), macs, self.fingerprint)

    def version(self) -> Version:
        """The node's version and platform (Talos ≤ 1.12 refuses this in maintenance mode)."""
        reply = self._read("Version")
        return Version(reply.version.tag, reply.version.arch, reply.platform.name, reply.platform.mode)

    def apply_configuration(self, data: str, *, dry_run: bool = False) -> Applied:
        """Send a configuration; Talos decides whether that takes a reboot (mode AUTO).

        Args:
            data: all documents, as YAML.
            dry_run: only say what would change; see `Applied.unchanged`.

        Raises:
            Rejected: the configuration is invalid.
            OutsideError: FAILED_PRECONDITION, one was applied already and the node is about to reboot (F31).
            AccessDenied: the role is too small.
            Unreachable: no answer; the configuration may or may not have arrived.
        """
        request = ApplyConfigurationRequest(data=data.encode(), mode=_Mode.AUTO, dry_run=dry_run)
        for attempt in stamina.retry_context(on=_is_busy, attempts=5, timeout=CHANGE, wait_initial=0.2):
            with attempt:
                reply = self._change("ApplyConfiguration", request)
        return Applied(_Mode.Name(reply.mode), reply.mode_details, tuple(reply.warnings))

    def _read(self, method: str, request: Any = None, *, timeout: float = READ) -> Any:
        reply = self._connection.call(MachineServiceStub, method, request or Empty(), timeout=timeout, again=True)
        return self._only(reply, method)

    def _change(self, method: str, request: Any) -> Any:
        return self._only(self._connection.call(MachineServiceStub, method, request, timeout=CHANGE), method)

    def _only(self, reply: Any, method: str) -> Any:
        message = reply.messages[0]
        if message.metadata.error:
            raise OutsideError(
                f"talos at {self.address} failed {method}: {message.metadata.error}",
                system="talos",
                detail=message.metadata.error,
            )
        return message


def _is_busy(error: Exception) -> bool:
    return isinstance(error, OutsideError) and "another apply configuration is already in progress" in error.detail
