"""The Proxmox VE endpoints, each with its hosts, its storages and the token that speaks to it."""

# ruff: noqa: TC001 (pydantic reads annotations when it runs)
from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from fluobook.params.fields import Fingerprint, HostName, Model, NodeName, ProxmoxUrl, Storage, Text, TokenId
from fluobook.params.secrets import SecretRef


class ProxmoxEndpoint(Model):
    """One Proxmox VE API: a single host, or a cluster of them."""

    name: NodeName
    """Name of the endpoint in these parameters."""
    url: ProxmoxUrl
    """https://host:port of the API."""
    token_id: TokenId
    """API token, user@realm!name."""
    token_secret: SecretRef
    """Where the token's secret is kept."""
    ca_file: Text | None = None
    """CA that signed the API's certificate; null for the system's CAs."""
    fingerprint: Fingerprint | None = None
    """SHA-256 fingerprint of the API's certificate, instead of a CA."""
    hosts: Annotated[tuple[HostName, ...], Field(min_length=1)]
    """The Proxmox VE hosts (its nodes) behind this API."""
    image_storage: Storage = "local"
    """Storage that takes ISO images."""
    disk_storage: Storage = "local-lvm"
    """Storage that takes VM disks."""

    @property
    def host(self) -> str:
        """Host part of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the URL."""
        return urlsplit(self.url).port or 0
