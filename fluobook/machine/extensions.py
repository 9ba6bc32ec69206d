"""What certificates say of themselves: subjects, usages and alternative names, as Go's X.509 writes them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable

#: An extension, and whether it is critical.
Extension = tuple[x509.ExtensionType, bool]


def leaf_extensions(*, server: bool, client: bool, key_encipherment: bool) -> list[Extension]:
    """What every certificate of a client or server carries."""
    extensions: list[Extension] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage(key_encipherment=key_encipherment), True),
    ]
    if server or client:
        extensions.append((extended_usage(server=server, client=client), False))
    return extensions


def names_extension(subject: x509.Name, names: x509.SubjectAlternativeName | None) -> list[Extension]:
    """The alternative names, if there are any."""
    # RFC 5280 4.2.1.6: a certificate without a subject stands on its names alone, so they are critical.
    return [(names, not list(subject))] if names is not None else []


def key_usage(*, sign_certificates: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    """What the key may be used for; always signing in handshakes."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def extended_usage(*, server: bool, client: bool) -> x509.ExtendedKeyUsage:
    """For TLS servers, clients or both."""
    usages = {ExtendedKeyUsageOID.SERVER_AUTH: server, ExtendedKeyUsageOID.CLIENT_AUTH: client}
    return x509.ExtendedKeyUsage([usage for usage, wanted in usages.items() if wanted])


def alternative_names(dns: Iterable[str], ips: Iterable[str]) -> x509.SubjectAlternativeName | None:
    """The names and addresses as X.509 holds them; None for none."""
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(dns)]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in dict.fromkeys(ips)]
    return x509.SubjectAlternativeName(names) if names else None


def requested_names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    """The alternative names that a request asks for; None for none."""
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def subject_of(common_name: str, organizations: tuple[str, ...]) -> x509.Name:
    """A subject: organizations first, as Go writes it."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in organizations]
    attributes += [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(attributes)
