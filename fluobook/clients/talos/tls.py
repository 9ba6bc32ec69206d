"""The two ways to meet a Talos node: with our certificates, or in maintenance mode with nothing to verify."""

from __future__ import annotations

import base64
import hashlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fluobook.machine.pki import KeyPair, load_identity


def mutual(ca: str, identity: KeyPair) -> ssl.SSLContext:
    """Verify the node against `ca` (PEM) and show it our certificate."""
    context = _client()
    context.load_verify_locations(cadata=ca)
    load_identity(context, identity)
    return context


def unverified() -> ssl.SSLContext:
    """For maintenance mode only: the node's certificate is made at boot, and nobody knows its authority.

    Whoever uses this looks at the machine's identity and pins its key before a secret is sent.
    """
    context = _client()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint(certificate: bytes) -> str:
    """The fingerprint of a certificate's key, as a Talos console shows it: SHA-256 of the SPKI, in base64."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context
