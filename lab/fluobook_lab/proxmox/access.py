"""API tokens and what they may do: privileges stand on paths, and the nearest entry above a path decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook_lab.proxmox.errors import PveError, forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PRIVILEGES = (
    *("Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"),
    *("Pool.Allocate", "Pool.Audit"),
    *("SDN.Allocate", "SDN.Audit", "SDN.Use"),
    *("Sys.AccessNetwork", "Sys.Audit", "Sys.Console", "Sys.Modify", "Sys.PowerMgmt", "Sys.Syslog"),
    *(
        "VM.Allocate",
        "VM.Audit",
        "VM.Backup",
        "VM.Clone",
        "VM.Console",
        "VM.Migrate",
        "VM.PowerMgmt",
        "VM.Snapshot",
        "VM.Snapshot.Rollback",
    ),
    *(
        "VM.Config.CDROM",
        "VM.Config.CPU",
        "VM.Config.Cloudinit",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
    ),
)
"""What both PVE 8 and 9 know."""

AGENT = {8: ("VM.Monitor",), 9: ("VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted")}


def administrator(major: int = 9) -> dict[str, tuple[str, ...]]:
    """Every privilege on everything, as the role Administrator has it."""
    return {"/": (*PRIVILEGES, *AGENT[major])}


@dataclass(frozen=True)
class Token:
    """An API token: `id` is user@realm!name, `grants` are privileges by path."""

    id: str
    secret: str = field(repr=False)
    grants: Mapping[str, Iterable[str]] = field(default_factory=administrator)

    def privileges(self, path: str) -> frozenset[str]:
        """What it may do at a path; an entry for a path replaces all that stands above it."""
        parts = [part for part in path.split("/") if part]
        for count in range(len(parts), -1, -1):
            if (at := "/" + "/".join(parts[:count])) in self.grants:
                return frozenset(self.grants[at])
        return frozenset()

    def may(self, path: str, *privileges: str) -> bool:
        """Whether it has all of the privileges at the path."""
        return self.privileges(path).issuperset(privileges)

    def need(self, path: str, *privileges: str) -> None:
        """Refuse unless it has all of the privileges at the path, and name the first that it has not."""
        for privilege in privileges:
            if not self.may(path, privilege):
                raise forbidden(path, privilege)

    def permissions(self, path: str | None = None) -> dict[str, dict[str, int]]:
        """GET /access/permissions: paths with a grant, or the one that was asked for."""
        paths = [path] if path else sorted(self.grants)
        found = {at: dict.fromkeys(sorted(self.privileges(at)), 1) for at in paths}
        return {at: held for at, held in found.items() if held or path}


def authenticate(header: str, tokens: Mapping[str, Token]) -> Token:
    """The token that an Authorization header belongs to.

    Raises:
        PveError: 401; without a token in the right form Proxmox VE looks for a login ticket instead.
    """
    scheme, _, credentials = header.partition("=")
    if scheme != "PVEAPIToken" or "=" not in credentials:
        raise PveError(401, "No ticket")
    token_id, _, secret = credentials.rpartition("=")
    token = tokens.get(token_id)
    if token is None or token.secret != secret:
        raise PveError(401, "Authentication failed!")
    return token
