"""A node without a configuration: whoever reaches it may configure it, so it is looked at closely first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.clients.rpc import Connection
from fluobook.clients.talos.api import Node
from fluobook.clients.talos.tls import fingerprint as fingerprint_of
from fluobook.clients.talos.tls import unverified
from fluobook.errors import ForeignObject

if TYPE_CHECKING:
    from fluobook.clients.rpc import Address


class MaintenanceNode(Node):
    """A node in maintenance mode.

    Its certificate is made anew at every boot and cannot be verified. So the key of the first connection is recorded
    and every later connection must show the same; `identity()` tells which machine holds that key. Between asking for
    the identity and sending a configuration nobody else can step in.

    Args:
        address: the node.
        fingerprint: the key that its console shows, if somebody read it there; else the first one seen is kept.
    """

    def __init__(self, address: Address, fingerprint: str = "") -> None:
        connection = Connection(address, system="talos", context=unverified(), accept=self._accept)
        super().__init__(connection, fingerprint)

    def _accept(self, certificate: bytes) -> None:
        seen = fingerprint_of(certificate)
        if self.fingerprint and seen != self.fingerprint:
            raise ForeignObject(
                f"the node at {self._connection.address} shows another key ({seen}) than before ({self.fingerprint})",
                cause="the node has rebooted, or another machine answers at this address",
                remedy="look at the VM's console for its fingerprint, then run the stage again",
            )
        self.fingerprint = seen


def maintenance(address: Address, *, fingerprint: str = "") -> MaintenanceNode:
    """The node in maintenance mode at an address; nothing is sent yet."""
    return MaintenanceNode(address, fingerprint)
