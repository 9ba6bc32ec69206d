"""The certificates that a node answers with."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING

from fluobook.machine.pki import KeyPair, issue, load_identity, new_authority

if TYPE_CHECKING:
    from collections.abc import Iterable


def maintenance_context(addresses: Iterable[str]) -> ssl.SSLContext:
    """No client certificate asked; the server's is of an authority that exists for this boot only."""
    authority = new_authority(organization="talos", algorithm="ed25519")
    context = _server(issue(authority, common_name="maintenance-service.talos.dev", ips=addresses, server=True))
    context.verify_mode = ssl.CERT_NONE
    return context


def api_context(
    authority: KeyPair, *, hostname: str, names: Iterable[str], accepted: Iterable[str] = ()
) -> ssl.SSLContext:
    """Mutual TLS: a server certificate for these names and addresses, and clients of this and the accepted CAs."""
    ips, dns = _sorted_names(["127.0.0.1", hostname, *names])
    context = _server(issue(authority, common_name=hostname, dns=dns, ips=ips, server=True))
    context.load_verify_locations(cadata="".join([authority.crt, *accepted]))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _server(identity: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_identity(context, identity)
    return context


def _sorted_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    ips, dns = [], []
    for name in dict.fromkeys(filter(None, names)):
        try:
            ips.append(str(ipaddress.ip_address(name)))
        except ValueError:
            dns.append(name)
    return ips, dns
