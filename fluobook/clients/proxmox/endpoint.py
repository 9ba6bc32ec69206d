"""One Proxmox VE endpoint: where it is, who we are to it, how its certificate is verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fluobook.clients.https import Target
from fluobook.errors import UsageError

DEFAULT_PORT = 8006


@dataclass(frozen=True)
class ProxmoxEndpoint:
    """A Proxmox VE host or cluster that answers at one URL.

    Args:
        name: its name in the params.
        url: `https://host[:port]`; the certificate must be for this host.
        address: the (host, port) to connect to instead, or None.
        token_id: `user@realm!tokenid`.
        token_secret: the token's secret; never shown.
        ca_file: PEM file of the authorities to trust, or None.
        fingerprint: SHA-256 of the certificate, or None. With neither, the system's authorities decide.

    Raises:
        UsageError: the URL or the token id does not have its form.
    """

    name: str
    url: str
    token_id: str
    token_secret: str = field(repr=False)
    address: tuple[str, int] | None = None
    ca_file: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise UsageError(f"{self.url!r} is not a URL of Proxmox VE", remedy="write it as https://host:8006")
        if not all(self.token):
            raise UsageError(
                f"{self.token_id!r} is not the id of a Proxmox VE token", remedy="write it as user@realm!tokenid"
            )

    @property
    def target(self) -> Target:
        """Where to connect, and what to verify."""
        parts = urlsplit(self.url)
        return Target(
            parts.hostname or "",
            parts.port or DEFAULT_PORT,
            address=self.address,
            ca_file=self.ca_file,
            fingerprint=self.fingerprint,
        )

    @property
    def token(self) -> tuple[str, str]:
        """The user (`user@realm`) and the token's own name."""
        user, _, name = self.token_id.partition("!")
        return user if "@" in user else "", name
