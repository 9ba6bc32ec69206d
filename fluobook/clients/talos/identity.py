"""Which machine answered: compared with the virtual machine that we made, before a secret is sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class MachineIdentity:
    """What a machine says of itself.

    `uuid` is that of its SMBIOS table, `macs` are the hardware addresses of its links (lower case), `fingerprint` is
    the SHA-256 of its server key (SPKI) in base64, as its console shows it (empty where TLS itself was verified).
    """

    uuid: str
    macs: tuple[str, ...]
    fingerprint: str

    def differs_from(self, *, uuid: str, mac: str = "") -> tuple[str, ...]:
        """In what the machine is not the expected one, one sentence each; empty if it is."""
        wrong = [] if same_uuid(self.uuid, uuid) else [f"its SMBIOS uuid is {self.uuid or 'unknown'}, not {uuid}"]
        if mac and mac.lower() not in self.macs:
            wrong.append(f"it has no link {mac.lower()} but {', '.join(self.macs) or 'none'}")
        return tuple(wrong)


def same_uuid(one: str, other: str) -> bool:
    """Whether two SMBIOS uuids are the same; the first three fields may stand in either byte order (SMBIOS 2.6)."""
    try:
        left, right = UUID(one), UUID(other)
    except ValueError:
        return False
    return right in {left, UUID(bytes_le=left.bytes)}
