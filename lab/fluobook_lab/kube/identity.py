"""Who asks: the user that a request is made by, and the context that every write carries."""

from __future__ import annotations

from dataclasses import dataclass, field

MASTERS = "system:masters"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
BOOTSTRAPPERS = "system:bootstrappers"


@dataclass(frozen=True)
class User:
    """A user name and its groups, as authentication found them."""

    name: str
    groups: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return MASTERS in self.groups

    @property
    def node(self) -> str:
        """The node's name if a kubelet asks, else ""."""
        kubelet = NODES in self.groups and self.name.startswith(NODE_PREFIX)
        return self.name.removeprefix(NODE_PREFIX) if kubelet else ""


ADMIN = User("system:admin", frozenset({MASTERS, "system:authenticated"}))
"""Who the lab's own parts are when they write: nothing is refused to them for want of rights."""


@dataclass(frozen=True)
class Write:
    """How an object is to be written.

    Args:
        manager: field manager; "" keeps managedFields as they are.
        user: who asks.
        dry_run: answer as if it had been done, and do nothing.
        validation: what happens to unknown fields: "Strict" (400), "Warn" or "Ignore" (both drop them).
        force: server-side apply takes fields that others own.
        subresource: "status", "approval", "scale", "finalize" or "".
        through: a subresource that changes a part of the object by another shape: "scale".
        duplicates: which members appear twice in the body.
        warnings: where warnings for the client are put.
    """

    manager: str = ""
    user: User = ADMIN
    dry_run: bool = False
    validation: str = "Ignore"
    force: bool = False
    subresource: str = ""
    through: str = ""
    duplicates: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
