"""Certificates and keys in the forms that Talos and Kubernetes write and read.

The lab makes its own certificates with this module too, and signs with the authorities it finds in configurations.

Talos writes an Ed25519 key under the label "ED25519 PRIVATE KEY" although its body is PKCS#8. OpenSSL and
`cryptography` refuse that label; Talos refuses the right one (talos#10277). Keys keep Talos' labels in fluobook, and
`openssl_key` gives the form for other readers.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fluobook.errors import FluobookError
from fluobook.files import temporary_folder

Algorithm = Literal["ecdsa", "ed25519", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

# Certificates are valid from a little before now: the clock of the machine that signs may run ahead of a node's.
BACKDATE = dt.timedelta(minutes=5)
RSA_BITS = 4096
_TALOS_LABEL = "ED25519 PRIVATE KEY"
_PKCS8_LABEL = "PRIVATE KEY"


@dataclass(frozen=True)
class KeyPair:
    """A certificate (or a chain, leaf first) and its private key, both PEM; the key has Talos' label."""

    crt: str
    key: str = field(repr=False)

    @classmethod
    def from_base64(cls, pair: Mapping[str, str]) -> KeyPair:
        """Read `{crt: …, key: …}` as machine configurations and secrets bundles have it: base64 of PEM.

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


def new_key(algorithm: Algorithm) -> PrivateKey:
    """Generate a key: ECDSA on P-256, Ed25519, or RSA of the size that Talos uses."""
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> str:
    """The key as Talos writes it, unencrypted."""
    is_ed25519 = isinstance(key, ed25519.Ed25519PrivateKey)
    form = serialization.PrivateFormat.PKCS8 if is_ed25519 else serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    return pem.replace(f" {_PKCS8_LABEL}-", f" {_TALOS_LABEL}-") if is_ed25519 else pem


def private_key(pem: str) -> PrivateKey:
    """The key in a PEM text, under Talos' labels or OpenSSL's.

    Raises:
        FluobookError: it cannot be read (the text itself is never quoted), or is of another kind than Talos uses.
    """
    try:
        # The service account's key is RSA: a test of its primes would take 0.3 s in every notebook.
        key = serialization.load_pem_private_key(
            openssl_key(pem).encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError):
        raise FluobookError("a private key cannot be read: it is not an unencrypted PEM key") from None
    if not isinstance(key, PrivateKey):
        raise FluobookError(f"a private key is of a kind that Talos does not use: {type(key).__name__}")
    return key


def openssl_key(pem: str) -> str:
    """The key under the label that OpenSSL, `ssl` and `cryptography` read."""
    return pem.replace(f"-----BEGIN {_TALOS_LABEL}", f"-----BEGIN {_PKCS8_LABEL}").replace(
        f"-----END {_TALOS_LABEL}", f"-----END {_PKCS8_LABEL}"
    )


def encode_pem(pem: str) -> str:
    """A PEM text as a value of a configuration."""
    return base64.b64encode(pem.encode()).decode()


def decode_pem(value: str) -> str:
    """The PEM text in a value of a configuration.

    Raises:
        FluobookError: the value is not base64 of text.
    """
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise FluobookError("a certificate or key in a configuration is not base64 of a PEM text") from None


def new_authority(
    *, organization: str = "", common_name: str = "", algorithm: Algorithm = "ecdsa", years: int = 10
) -> KeyPair:
    """A new self-signed certificate authority, with the extensions that Talos gives its own."""
    key = new_key(algorithm)
    name = _subject(common_name, (organization,) if organization else ())
    builder = _builder(name, name, key.public_key(), dt.timedelta(days=365 * years))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=True), critical=True)
    builder = builder.add_extension(_extended_usage(server=True, client=True), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return KeyPair(_signed(builder, key), key_pem(key))


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
    """Generate a key, and a certificate for it that the authority signs.

    Args:
        authority: signs the certificate.
        common_name: the subject's CN; a user name to Kubernetes.
        organizations: the subject's O values, in order; groups to Kubernetes, roles to Talos.
        dns: DNS names of the certificate.
        ips: IPv4 and IPv6 addresses of the certificate.
        server: for TLS servers.
        client: for TLS clients.
        key_encipherment: the key usage that kubelets and API servers also need.
        days: how long it is valid.
        algorithm: of the new key; the authority's own unless given.
    """
    key = new_key(algorithm or _algorithm(private_key(authority.key)))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(dns)]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in dict.fromkeys(ips)]
    crt = certify(
        authority,
        _subject(common_name, tuple(organizations)),
        key.public_key(),
        x509.SubjectAlternativeName(names) if names else None,
        server=server,
        client=client,
        key_encipherment=key_encipherment,
        days=days,
    )
    return KeyPair(crt, key_pem(key))


def fingerprint(crt_pem: str) -> str:
    """SHA-256 of the certificate as Proxmox VE and browsers show it: "AA:BB:…"."""
    return certificate(crt_pem).fingerprint(hashes.SHA256()).hex(":").upper()


def load_identity(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Give a TLS context its certificate and key; `ssl` reads files only, so a private one exists for a moment."""
    with temporary_folder("identity") as folder:
        path = folder / "identity.pem"
        path.touch(mode=0o600)
        path.write_text(openssl_key(pair.key).rstrip("\n") + "\n" + pair.crt)
        context.load_cert_chain(path)


def certificate(pem: str) -> x509.Certificate:
    """The first certificate in a PEM text.

    Raises:
        FluobookError: there is none, or it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise FluobookError("a certificate cannot be read: it is not PEM, or damaged") from None


def certify(
    authority: KeyPair,
    subject: x509.Name,
    public: object,
    names: x509.SubjectAlternativeName | None,
    *,
    server: bool = False,
    client: bool = False,
    key_encipherment: bool = False,
    days: float = 365,
) -> str:
    """A certificate of a client or server for a public key, signed by the authority, as PEM; see `issue`.

    Raises:
        FluobookError: the key is of a kind that Talos does not use.
    """
    issuer = certificate(authority.crt)
    builder = _builder(subject, issuer.subject, _supported(public), dt.timedelta(days=days))
    # RFC 5280 4.2.1.6: the alternative names of a certificate without a subject are critical.
    extensions = {
        x509.BasicConstraints(ca=False, path_length=None): True,
        _key_usage(key_encipherment=key_encipherment): True,
        _extended_usage(server=server, client=client) if server or client else None: False,
        names: not list(subject),
        _authority_identifier(issuer): False,
    }
    for extension, critical in extensions.items():
        if extension is not None:
            builder = builder.add_extension(extension, critical=critical)
    return _signed(builder, private_key(authority.key))


def _key_usage(*, sign_certificates: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    """The uses of a key; always signing in handshakes."""
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


def _extended_usage(*, server: bool, client: bool) -> x509.ExtendedKeyUsage:
    usages = {ExtendedKeyUsageOID.SERVER_AUTH: server, ExtendedKeyUsageOID.CLIENT_AUTH: client}
    return x509.ExtendedKeyUsage([usage for usage, wanted in usages.items() if wanted])


def _subject(common_name: str, organizations: tuple[str, ...]) -> x509.Name:
    """A subject: organizations first, as Go writes it."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in organizations]
    attributes += [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - BACKDATE).not_valid_after(now + lifetime)


def _signed(builder: x509.CertificateBuilder, key: PrivateKey) -> str:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_supported(issuer.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _algorithm(key: PrivateKey) -> Algorithm:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    return "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ecdsa"


def _supported(key: object) -> PublicKey:
    if isinstance(key, PublicKey):
        return key
    raise FluobookError(f"a public key is of a kind that Talos does not use: {type(key).__name__}")
