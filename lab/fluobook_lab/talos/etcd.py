"""Who is a member of which etcd: what one bootstrap makes, and others join."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

CLIENT_PORT, PEER_PORT = 2379, 2380


@dataclass(frozen=True)
class Member:
    """One member."""

    id: int
    hostname: str
    address: str

    @property
    def peer_url(self) -> str:
        """Where other members reach it."""
        return f"https://{self.address}:{PEER_PORT}"

    @property
    def client_url(self) -> str:
        """Where clients reach it."""
        return f"https://{self.address}:{CLIENT_PORT}"


@dataclass
class Etcd:
    """One etcd cluster; members are known by their machines' uuids."""

    members: dict[str, Member] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    announced: bool = False
    """Whether the Kubernetes side has been told of it."""

    @property
    def has_quorum(self) -> bool:
        """Whether more than half of its members run."""
        return len(self.up) * 2 > len(self.members)

    def join(self, uuid: str, hostname: str, address: str, *, random: Random) -> None:
        """Make a machine a member, unless it is one."""
        self.members.setdefault(uuid, Member(random.getrandbits(64), hostname, address))

    def leave(self, uuid: str) -> None:
        """Take a machine out."""
        self.members.pop(uuid, None)
        self.up.discard(uuid)
