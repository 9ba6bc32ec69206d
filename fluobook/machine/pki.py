"""Certificates and keys in the forms that Talos and Kubernetes write and read.

The lab makes its own certificates with this module too, and signs with the authorities it finds in configurations.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from fluobook.errors import FluobookError
from fluobook.machine.extensions import (
    Extension,
    alternative_names,
    extended_usage,
    key_usage,
    leaf_extensions,
    names_extension,
    requested_names,
    subject_of,
)
from fluobook.machine.keys import (
    Algorithm,
    PrivateKey,
    PublicKey,
    algorithm_of,
    decode_pem,
    encode_pem,
    key_pem,
    new_key,
    openssl_key,
    private_key,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping

#: Certificates are valid from a little before now: the clock of the machine that makes them may run ahead of a node's.
BACKDATE = dt.timedelta(minutes=5)

__all__ = [
    "Algorithm",
    "KeyPair",
    "certificate",
    "fingerprint",
    "issue",
    "load_identity",
    "new_authority",
    "openssl_key",
    "private_key",
    "sign_request",
    "spki_fingerprint",
]


@dataclass(frozen=True)
class KeyPair:
    """A certificate (or a chain, leaf first) and its private key, both PEM; the key has Talos' label."""

    crt: str
    key: str = field(repr=False)

    @classmethod
    def from_base64(cls, pair: Mapping[str, str]) -> KeyPair:
        """Read `{crt: …, key: …}` as machine configurations and secrets bundles hold it: base64 of PEM.

        Raises:
            FluobookError: a value is missing or is not base64.
        """
        try:
            return cls(decode_pem(pair["crt"]), decode_pem(pair["key"]))
        except KeyError as error:
            raise FluobookError(f"a certificate and key pair has no {error.args[0]!r}") from None

    def to_base64(self) -> dict[str, str]:
        """The pair as `{crt: …, key: …}`, base64 of PEM."""
        return {"crt": encode_pem(self.crt), "key": encode_pem(self.key)}


def new_authority(
    *, organization: str = "", common_name: str = "", algorithm: Algorithm = "ecdsa", years: int = 10
) -> KeyPair:
    """Make a self-signed certificate authority, with the extensions that Talos gives its own."""
    key = new_key(algorithm)
    name = subject_of(common_name, (organization,) if organization else ())
    builder = _builder(name, name, key.public_key(), dt.timedelta(days=365 * years))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(sign_certificates=True), critical=True)
    builder = builder.add_extension(extended_usage(server=True, client=True), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return KeyPair(_pem(builder.sign(key, _digest(key))), key_pem(key))


def issue(
    authority: KeyPair,
    *,
    common_name: str = "",
    organizations: Iterable[str] = (),
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
    server: bool = False,
    client: bool = False,
    key_encipherment: bool = False,
    days: float = 365,
    algorithm: Algorithm | None = None,
) -> KeyPair:
    """Make a key and have the authority sign a certificate for it.

    Args:
        authority: who signs.
        common_name: the subject's CN; a user name to Kubernetes.
        organizations: the subject's O values, in order; groups to Kubernetes, roles to Talos.
        dns: DNS names the certificate is good for.
        ips: IPv4 and IPv6 addresses it is good for.
        server: for TLS servers.
        client: for TLS clients.
        key_encipherment: the key usage that kubelets and API servers also ask for.
        days: how long it is valid.
        algorithm: of the new key; the authority's own where none is given.
    """
    key = new_key(algorithm or algorithm_of(private_key(authority.key)))
    subject, public = subject_of(common_name, tuple(organizations)), key.public_key()
    extensions = leaf_extensions(server=server, client=client, key_encipherment=key_encipherment)
    extensions += names_extension(subject, alternative_names(dns, ips))
    return KeyPair(_signed(authority, subject, public, extensions, days), key_pem(key))


def sign_request(
    authority: KeyPair,
    csr_pem: str,
    *,
    days: float = 365,
    server: bool = False,
    client: bool = False,
    key_encipherment: bool = False,
) -> str:
    """Sign a request's subject, public key and alternative names; the usages are the signer's to choose.

    Raises:
        FluobookError: the request cannot be read, or its own signature is wrong.
    """
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
    except ValueError as error:
        raise FluobookError(f"the certificate request cannot be read: {error}") from None
    if not request.is_signature_valid:
        raise FluobookError("the certificate request is not signed by its own key")
    extensions = leaf_extensions(server=server, client=client, key_encipherment=key_encipherment)
    extensions += names_extension(request.subject, requested_names(request))
    return _signed(authority, request.subject, _supported(request.public_key()), extensions, days)


def fingerprint(crt_pem: str) -> str:
    """SHA-256 of the certificate as Proxmox VE and browsers show it: "AA:BB:…"."""
    return certificate(crt_pem).fingerprint(hashes.SHA256()).hex(":").upper()


def spki_fingerprint(crt_pem: str) -> str:
    """SHA-256 of the public key in base64, as a Talos console shows it and `talosctl --cert-fingerprint` takes it."""
    spki = (
        certificate(crt_pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def load_identity(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Give a TLS context its certificate and key; `ssl` reads files only, so a private one exists for a moment."""
    with tempfile.TemporaryDirectory(prefix="fluobook-") as folder:
        path = Path(folder) / "identity.pem"
        path.touch(mode=0o600)
        path.write_text(openssl_key(pair.key).rstrip("\n") + "\n" + pair.crt)
        context.load_cert_chain(path)


def certificate(pem: str) -> x509.Certificate:
    """The first certificate of a PEM text.

    Raises:
        FluobookError: there is none, or it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise FluobookError(f"a certificate cannot be read: {error}") from None


def _signed(authority: KeyPair, subject: x509.Name, public: PublicKey, extensions: list[Extension], days: float) -> str:
    issuer, key = certificate(authority.crt), private_key(authority.key)
    builder = _builder(subject, issuer.subject, public, dt.timedelta(days=days))
    for extension, critical in [*extensions, (_authority_identifier(issuer), False)]:
        builder = builder.add_extension(extension, critical=critical)
    return _pem(builder.sign(key, _digest(key)))


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_supported(issuer.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _supported(key: object) -> PublicKey:
    if isinstance(key, PublicKey):
        return key
    raise FluobookError(f"a public key is of a kind that Talos does not use: {type(key).__name__}")


def _pem(signed: x509.Certificate) -> str:
    return signed.public_bytes(serialization.Encoding.PEM).decode()
