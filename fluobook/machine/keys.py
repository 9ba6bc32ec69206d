"""Private keys under the labels that Talos insists on.

Talos writes an Ed25519 key under the label "ED25519 PRIVATE KEY" although its body is PKCS#8, which OpenSSL and
`cryptography` refuse to read; under the right label Talos refuses it (talos#10277). So keys keep Talos' labels in
fluobook, and `openssl_key` gives the form for everybody else.
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fluobook.errors import FluobookError

Algorithm = Literal["ecdsa", "ed25519", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

RSA_BITS = 4096

_TALOS_LABEL = "ED25519 PRIVATE KEY"
_PKCS8_LABEL = "PRIVATE KEY"


def new_key(algorithm: Algorithm) -> PrivateKey:
    """Make a key: ECDSA on P-256, Ed25519, or RSA of the size Talos uses."""
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def algorithm_of(key: PrivateKey) -> Algorithm:
    """What kind of key it is."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    return "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ecdsa"


def key_pem(key: PrivateKey) -> str:
    """The key as Talos writes it, unencrypted."""
    talos = isinstance(key, ed25519.Ed25519PrivateKey)
    form = serialization.PrivateFormat.PKCS8 if talos else serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    return pem.replace(f" {_PKCS8_LABEL}-", f" {_TALOS_LABEL}-") if talos else pem


def private_key(pem: str) -> PrivateKey:
    """The key of a PEM text, under Talos' labels or OpenSSL's.

    Raises:
        FluobookError: it cannot be read (the text itself is never quoted), or is of another kind than Talos uses.
    """
    try:
        key = serialization.load_pem_private_key(openssl_key(pem).encode(), password=None)
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


def new_rsa_key() -> str:
    """A new RSA key, PEM "RSA PRIVATE KEY": what Talos signs service account tokens with."""
    return key_pem(new_key("rsa"))


def encode_pem(pem: str) -> str:
    """A PEM text as configurations hold it."""
    return base64.b64encode(pem.encode()).decode()


def decode_pem(value: str) -> str:
    """The PEM text of a configuration's value.

    Raises:
        FluobookError: the value is not base64 of text.
    """
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise FluobookError("a certificate or key in a configuration is not base64 of a PEM text") from None
